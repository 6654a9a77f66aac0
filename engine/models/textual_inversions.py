"""Textual inversions: which files a folder holds, and what their headers say. No torch, and never a pickle.

A textual inversion is a word that was trained: vectors that stand where a text encoder looks up those of its tokens.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from engine.prompts.chunks import CHUNK_TOKENS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["MAX_FILES", "MAX_FILE_BYTES", "TextualInversion", "read_textual_inversions"]

MAX_FILES: Final = 5_000
MAX_FILE_BYTES: Final = 2**22
"""75 vectors of Stable Diffusion XL have 614,400 bytes in single precision."""
_MAX_HEADER_BYTES: Final = 2**20
_MAX_NAME: Final = 100
_BYTES: Final = {"F32": 4, "F16": 2, "BF16": 2}
"""Bytes of a number."""
_XL: Final = ("clip_l", "clip_g")
"""What files for Stable Diffusion XL call the vectors of its two encoders."""
_DAMAGED: Final = "it is not a safetensors file, or damaged"
_NOT_VECTORS: Final = "string_to_token"
"""What some converted files hold beside the vectors: tokens of the tokenizer they were trained with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextualInversion:
    """One file."""

    name: str
    """What prompts call it: the file's name without its ending."""
    path: Path
    tensors: tuple[str, ...] = ()
    """What its tensors are called, one for each text encoder."""
    widths: tuple[int, ...] = ()
    """Numbers of a vector, for each of them."""
    num_vectors: int = 0
    fault: str = ""
    """Why it cannot be used; empty: it can."""

    def fault_with(self, widths: Sequence[int]) -> str:
        """Why it cannot be used with a model whose text encoders have vectors of these widths; empty: it can."""
        if self.fault or tuple(widths) == self.widths:
            return self.fault
        own, model = (" + ".join(map(str, numbers)) or "no" for numbers in (self.widths, widths))
        return f"its vectors have {own} numbers, those of this model's text encoders {model}"


def read_textual_inversions(folder: Path | None) -> tuple[TextualInversion, ...]:
    """The textual inversions of a folder and the folders in it, sorted by name; those that cannot be used, too.

    Args:
        folder: None, or one that cannot be read: there are none.
    """
    if folder is None:
        return ()
    paths = sorted(path for path in folder.rglob("*.safetensors") if path.is_file())[:MAX_FILES]
    found = [_read(path) for path in paths if path.stem.isprintable() and len(path.stem) <= _MAX_NAME]
    # Tokenizers know no capitals.
    times = Counter(inversion.name.casefold() for inversion in found)
    return tuple(
        replace(inversion, fault="several files have this name") if times[inversion.name.casefold()] > 1 else inversion
        for inversion in sorted(found, key=lambda inversion: inversion.name)
    )


class _FaultyFileError(Exception):
    """What is wrong with a file."""


def _read(path: Path) -> TextualInversion:
    try:
        return _understood(path, _shapes(path))
    except _FaultyFileError as error:
        return TextualInversion(name=path.stem, path=path, fault=str(error))


def _understood(path: Path, shapes: Mapping[str, tuple[int, int]]) -> TextualInversion:
    names = _XL if shapes.keys() == set(_XL) else tuple(shapes)
    if not names or (len(names) > 1 and names != _XL):
        raise _FaultyFileError("it must hold one tensor, or clip_l and clip_g")
    counts = {shapes[name][0] for name in names}
    if len(counts) > 1:
        raise _FaultyFileError("clip_l and clip_g must have equally many vectors")
    widths = tuple(shapes[name][1] for name in names)
    return TextualInversion(name=path.stem, path=path, tensors=names, widths=widths, num_vectors=counts.pop())


def _shapes(path: Path) -> dict[str, tuple[int, int]]:
    """Tensor -> number of vectors, and their width.

    Raises:
        _FaultyFileError: it is damaged, too large, or holds something else.
    """
    try:
        num_bytes = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(min(length, _MAX_HEADER_BYTES))
    except OSError as error:
        raise _FaultyFileError(f"it cannot be read: {error.strerror}") from error
    if num_bytes > MAX_FILE_BYTES:
        raise _FaultyFileError(f"it has more than {MAX_FILE_BYTES} bytes")
    if len(text) != length:
        raise _FaultyFileError(_DAMAGED)
    try:
        header: dict[str, Any] = json.loads(text)
        header.pop("__metadata__", None)
        return {
            name: _shape(entry, num_bytes - 8 - length)
            for name, entry in header.items()
            if not name.startswith(_NOT_VECTORS)
        }
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _FaultyFileError(_DAMAGED) from error


def _shape(entry: dict[str, Any], num_data_bytes: int) -> tuple[int, int]:
    begin, end = entry["data_offsets"]
    shape = [1, *entry["shape"]][-2:] if len(entry["shape"]) <= 2 else []
    if len(shape) != 2 or not all(isinstance(number, int) and number > 0 for number in shape):
        raise _FaultyFileError("its tensors must hold vectors")
    if entry["dtype"] not in _BYTES:
        raise _FaultyFileError(f"its numbers must be one of {', '.join(_BYTES)}")
    count, width = shape
    if count > CHUNK_TOKENS:
        raise _FaultyFileError(f"it must have at most {CHUNK_TOKENS} vectors")
    if not 0 <= begin <= end <= num_data_bytes or end - begin != count * width * _BYTES[entry["dtype"]]:
        raise _FaultyFileError("it is damaged: its length does not suit its header")
    return count, width
