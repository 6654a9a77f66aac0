"""The tensors of a safetensors file, by name, in the memory-mapped file.

The package `safetensors` checks the file. Its own `get_tensor` is not used: version 0.8.0 keeps 64 bytes of each call
for ever, 5 MiB after a hundred changes between small models, and more with large ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from safetensors import SafetensorError, safe_open

from engine.errors import ModelLoadError
from engine.models.weights_header import read_header

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet
    from pathlib import Path

__all__ = ["WeightsFile"]

_DTYPES: Final = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class WeightsFile:
    """An open file. It stays mapped while any of its tensors is in use."""

    def __init__(self, path: Path) -> None:
        """Map a file.

        Raises:
            ModelLoadError: it is damaged or not readable.
        """
        self._path = path
        try:
            with safe_open(path, framework="pt", device="cpu"):
                pass  # it checks that header and data suit each other
            header = read_header(path)
            self._tensors, self.notes = header.tensors, header.notes
            self._bytes = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)
        except (SafetensorError, OSError, RuntimeError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise ModelLoadError(f"{path} is damaged or not readable: {reason}") from error

    @property
    def names(self) -> AbstractSet[str]:
        """Of its tensors."""
        return self._tensors.keys()

    def tensor(self, name: str) -> torch.Tensor:
        """A view into the file: copy it before somebody overwrites the file.

        Raises:
            ModelLoadError: its numbers are of a kind that torch does not have.
        """
        stored = self._tensors[name]
        if stored.dtype not in _DTYPES:
            raise ModelLoadError(f"{self._path}: {name} holds numbers of the kind {stored.dtype}, which is not served")
        dtype = _DTYPES[stored.dtype]
        numbers = self._bytes[stored.begin : stored.end]
        if stored.begin % dtype.itemsize:
            numbers = numbers.clone()  # most writers align tensors, but the format does not ask for it
        return numbers.view(dtype).view(stored.shape)
