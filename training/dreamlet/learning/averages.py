"""Weight averaging (EMA): the averaged weights are the result of a training."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class MovingAverage:
    """The exponential moving average of a module's weights. Its memory grows with the run, up to the given decay."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module = module
        self._decay = decay
        self._steps = 0
        self._weights = [parameter.detach().clone() for parameter in module.parameters()]

    @torch.no_grad()
    def update(self) -> None:
        """Take one step towards the weights as they are."""
        self._steps += 1
        # A fixed decay would remember the random start for long in a short run.
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        torch._foreach_lerp_(self._weights, list(self._module.parameters()), 1 - decay)

    @contextmanager
    @torch.no_grad()
    def in_place(self) -> Iterator[None]:
        """Put the average into the module for a while."""
        current = [parameter.detach().clone() for parameter in self._module.parameters()]
        for parameter, average in zip(self._module.parameters(), self._weights, strict=True):
            parameter.copy_(average)
        try:
            yield
        finally:
            for parameter, value in zip(self._module.parameters(), current, strict=True):
                parameter.copy_(value)

    def state(self) -> dict[str, object]:
        """For a checkpoint."""
        return {"steps": self._steps, "weights": self._weights}

    @torch.no_grad()
    def restore(self, steps: int, weights: list[torch.Tensor]) -> None:
        """From a checkpoint."""
        self._steps = steps
        for own, saved in zip(self._weights, weights, strict=True):
            own.copy_(saved)
