"""What the header of a safetensors file says of its tensors. No torch, and no weights are read."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from engine.errors import ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["StoredTensor", "WeightsHeader", "read_header"]

_MAX_HEADER_BYTES: Final = 2**25
"""A model of 3,000 tensors has a third of a megabyte."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor is in a file, and of what kind."""

    dtype: str
    """The format's name: `F16`, `BF16`, `I64`."""
    shape: tuple[int, ...]
    begin: int
    """Its first byte in the file."""
    end: int
    """The byte after its last."""


@dataclass(frozen=True, slots=True)
class WeightsHeader:
    """What a file holds."""

    tensors: Mapping[str, StoredTensor]
    notes: Mapping[str, str]
    """What whoever made the file wrote into it."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Tensor -> its shape."""
        return {name: stored.shape for name, stored in self.tensors.items()}


def read_header(path: Path) -> WeightsHeader:
    """Read a header. Whether it suits the rest of the file is not checked.

    Raises:
        ModelLoadError: it is damaged or no such file.
    """
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _MAX_HEADER_BYTES:
                raise ModelLoadError(f"{path} is damaged: its header has {length} bytes")
            header = json.loads(file.read(length))
        notes = header.pop("__metadata__", {}) or {}
        tensors = {}
        for name, entry in header.items():
            begin, end = (8 + length + int(offset) for offset in entry["data_offsets"])
            tensors[name] = StoredTensor(entry["dtype"], tuple(entry["shape"]), begin, end)
        return WeightsHeader(tensors, dict(notes))
    except OSError as error:
        raise ModelLoadError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, LookupError, TypeError, AttributeError, struct.error, RecursionError) as error:
        raise ModelLoadError(f"{path} is damaged: it is not a safetensors file") from error
