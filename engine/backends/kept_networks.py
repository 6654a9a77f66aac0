"""Networks that have left a GPU, kept in host memory: from there they come back faster than from their files."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch

from engine.backends.base import Examples, Function, NetworkFiles
from engine.backends.torch_backend import TorchBackend

__all__ = ["KeptNetworks"]

logger = logging.getLogger(__name__)

_HOST: Final = torch.device("cpu")
_Key = tuple[str, str, int, int, tuple[tuple[Path, float], ...]]
"""Name of the network, its file, that file's size and time, and its LoRAs: another file is another network."""


class KeptNetworks:
    """Networks by their files, the one that left longest ago forgotten first. Belongs to the thread that loads."""

    def __init__(self, device: torch.device, budget_bytes: int) -> None:
        """Keep nothing yet.

        Args:
            device: where networks run.
            budget_bytes: of host memory, for those that do not.
        """
        self._device = device
        self._budget_bytes = budget_bytes
        self._kept: OrderedDict[_Key, torch.nn.Module] = OrderedDict()
        self._in_use: dict[str, list[tuple[_Key, torch.nn.Module]]] = {}
        """Model -> its networks on the device."""

    @property
    def num_bytes(self) -> int:
        """Of what is kept."""
        return sum(map(_num_bytes, self._kept.values()))

    def backend_for(self, model: str) -> TorchBackend:
        """What loads the networks of a model: from host memory those that are kept, the others from their files."""
        return _Backend(self, model)

    def load(self, model: str, key: _Key, read: Callable[[], torch.nn.Module]) -> torch.nn.Module:
        """A network on the device."""
        kept = self._kept.pop(key, None)
        module = read() if kept is None else _moved(kept, self._device)
        self._in_use.setdefault(model, []).append((key, module))
        return module

    def leave(self, model: str) -> None:
        """A model has left the device: keep its networks as far as there is room."""
        for key, module in self._in_use.pop(model, []):
            size = _num_bytes(module)
            if size > self._budget_bytes:
                continue
            while self.num_bytes + size > self._budget_bytes:
                self._kept.popitem(last=False)
            self._kept[key] = _moved(module, _HOST)


class _Backend(TorchBackend):
    """Torch's, with networks from where they are fastest."""

    def __init__(self, networks: KeptNetworks, model: str) -> None:
        super().__init__()
        self._networks = networks
        self._model = model

    def functions(self, network: NetworkFiles, examples: Examples) -> Mapping[str, Function]:
        """See `Backend.functions`."""
        stat = network.weights.stat()
        key = (network.name, str(network.weights), stat.st_size, stat.st_mtime_ns, network.changes)
        return super().functions(
            replace(network, load=lambda: self._networks.load(self._model, key, network.load)), examples
        )


def _num_bytes(module: torch.nn.Module) -> int:
    return sum(parameter.nbytes for parameter in module.parameters())


def _moved(module: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """The same module elsewhere, in the same layout; one tensor at a time, so that none is there twice for long."""
    with torch.inference_mode():
        for part in module.modules():
            for name, parameter in list(part.named_parameters(recurse=False)):
                setattr(part, name, torch.nn.Parameter(parameter.to(device), requires_grad=False))
            for name, buffer in list(part.named_buffers(recurse=False)):
                setattr(part, name, buffer.to(device))
    return module
