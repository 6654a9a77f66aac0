"""What the engine asks of a backend: functions of a network, ready to be called. Knows no model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

__all__ = ["Backend", "Example", "Examples", "Function", "NetworkFiles"]

Function = Callable[..., torch.Tensor]
"""Tensors in, on the backend's device; one tensor out. Called from one thread at a time."""


@dataclass(frozen=True, slots=True)
class Example:
    """What one function of a network may be called with."""

    inputs: tuple[torch.Tensor, ...]
    """Small, on the CPU; their values do not matter."""
    varying: tuple[tuple[int, ...], ...]
    """For each of them, the axes whose length may be another at the next call: rows, height, width, tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkFiles:
    """Where a network comes from, and how it gets its weights."""

    name: str
    """For the log and the cache: `unet`, `vae`, `text_encoder`."""
    config: Mapping[str, Any]
    """What its `config.json` says."""
    weights: Path
    """A safetensors file."""
    changes: tuple[tuple[Path, float], ...] = ()
    """Files of LoRAs that `load` adds to the weights, and how much of each."""
    load: Callable[[], torch.nn.Module]
    """Reads the file: frozen, in eval mode; what it gave before, while that is in memory."""


Examples = Mapping[str, Callable[[torch.nn.Module], Example]]
"""Method of a network -> what it may be called with, which may need the network to be laid out."""


class Backend(Protocol):
    """Runs networks. Belongs to the engine's thread."""

    @property
    def name(self) -> str:
        """`torch` or `openvino`."""
        ...

    @property
    def num_threads(self) -> int:
        """CPU threads that compute one call."""
        ...

    def functions(self, network: NetworkFiles, examples: Examples) -> Mapping[str, Function]:
        """Make functions of a network ready.

        Each gives a row the same bits whatever the other rows hold, whatever was called before and in every process,
        as long as the shape of the call is the same.

        Args:
            network: whose.
            examples: which functions.

        Returns:
            Method -> function.

        Raises:
            ModelLoadError: the file cannot be served.
        """
        ...
