"""A network with its optimisers and averaged weights: takes steps, and is saved in checkpoints."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from training.dreamlet.learning.averages import MovingAverage
from training.dreamlet.learning.muon import Muon, is_for_muon
from training.dreamlet.learning.schedule import Training

BETAS = (0.9, 0.98)


class Learner:
    """Owns the weights and everything that remembers earlier steps."""

    def __init__(self, network: nn.Module, training: Training, for_adamw: Sequence[str] = ()) -> None:
        """Set up the optimizers.

        Args:
            network: on its device; parameters that ask for no gradient stay as they are.
            training: the rates.
            for_adamw: parts of the names of matrices that Muon must leave alone: first and last layers, embeddings.
        """
        self.network = network
        self._limit = training.max_gradient_norm
        trained = {name: weights for name, weights in network.named_parameters() if weights.requires_grad}
        matrices = {
            name
            for name, weights in trained.items()
            if training.muon_rate and is_for_muon(weights) and not any(part in name for part in for_adamw)
        }
        others = [weights for name, weights in trained.items() if name not in matrices]
        self._optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(others, lr=training.adamw_rate, betas=BETAS, weight_decay=0.0)
        ]
        if matrices:
            self._optimizers.append(Muon([trained[name] for name in trained if name in matrices], training.muon_rate))
        self._rates = [training.adamw_rate, training.muon_rate]
        self._trained = list(trained.values())
        self.average = MovingAverage(network, training.average)

    def step(self, loss: torch.Tensor, factor: float) -> None:
        """Learn from a loss, with the learning rates multiplied by the factor."""
        for optimizer, rate in zip(self._optimizers, self._rates, strict=False):
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
        torch.autograd.backward(loss)
        if self._limit:
            nn.utils.clip_grad_norm_(self._trained, self._limit)
        for optimizer in self._optimizers:
            optimizer.step()
        self.average.update()

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.state(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self.network.load_state_dict(state["network"])
        self.average.restore(**state["average"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
