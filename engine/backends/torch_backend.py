"""Networks run by torch, as they are written: on a GPU always, on a CPU where OpenVINO is not there or not wanted."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from engine.backends.base import Examples, Function, NetworkFiles

__all__ = ["TorchBackend"]


class TorchBackend:
    """See `Backend`."""

    name = "torch"

    def __init__(self, num_threads: int | None = None) -> None:
        """Use so many CPU threads in this process; None: as many as torch would."""
        if num_threads is not None and num_threads != torch.get_num_threads():
            torch.set_num_threads(num_threads)

    @property
    def num_threads(self) -> int:
        """See `Backend.num_threads`."""
        return torch.get_num_threads()

    def functions(self, network: NetworkFiles, examples: Examples) -> Mapping[str, Function]:
        """See `Backend.functions`."""
        module = network.load()
        return {name: _channels_last(getattr(module, name)) for name in examples}


def _channels_last(function: Function) -> Function:
    """Pictures in the layout in which convolutions run fastest, on CPUs and GPUs alike; stacking them undoes it."""

    def call(*inputs: torch.Tensor) -> torch.Tensor:
        return function(
            *(tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor for tensor in inputs)
        )

    return call
