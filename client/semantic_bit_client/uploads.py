"""Pictures that go with a request: from a path, bytes or a PIL picture, to the body of a form. No HTTP library."""

from __future__ import annotations

import io
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

__all__ = ["AnyPicture", "PillowPicture", "form_of", "picture_file"]

_PNG_MODES: Final = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
"""Of PIL pictures, those that a PNG file holds."""


@runtime_checkable
class PillowPicture(Protocol):
    """What is asked of a PIL picture. Pillow itself need not be installed."""

    @property
    def mode(self) -> str:
        """How its pixels are stored."""
        ...

    def convert(self, mode: str) -> PillowPicture:
        """The same with other pixels."""
        ...

    def save(self, fp: Any, format: str) -> None:  # noqa: A002, ANN401 -- Pillow's own
        """Write it."""
        ...


AnyPicture = str | os.PathLike[str] | bytes | PillowPicture
"""A picture: the path of a PNG, JPEG or WebP file, such a file's bytes, or a PIL picture."""


def picture_file(picture: AnyPicture) -> bytes:
    """A picture as a file.

    Raises:
        OSError: it cannot be read.
        TypeError: it is nothing of the kind.
        ValueError: the file is empty. (An empty part of a form is a picture that was left out.)
    """
    file = _file(picture)
    if not file:
        raise ValueError("a picture must not be an empty file")
    return file


def _file(picture: AnyPicture) -> bytes:
    if isinstance(picture, bytes):
        return picture
    if isinstance(picture, str | os.PathLike):
        return Path(picture).read_bytes()
    if isinstance(picture, PillowPicture):
        buffer = io.BytesIO()
        (picture if picture.mode in _PNG_MODES else picture.convert("RGB")).save(buffer, "PNG")
        return buffer.getvalue()
    raise TypeError(f"a picture must be a path, bytes or a PIL picture, not {type(picture).__name__}")


def form_of(request: Mapping[str, object], files: Mapping[str, bytes]) -> tuple[str, bytes]:
    """A form with a request and its pictures: its media type and its body."""
    boundary = uuid.uuid4().hex
    parts = {"request": json.dumps(request).encode(), **files}
    return f"multipart/form-data; boundary={boundary}", b"".join(_form(parts, boundary))


def _form(parts: Mapping[str, bytes], boundary: str) -> Iterator[bytes]:
    for name, data in parts.items():
        file, kind = ("", "application/json") if name == "request" else (f'; filename="{name}"', "image/*")
        head = f'Content-Disposition: form-data; name="{name}"{file}\r\nContent-Type: {kind}'
        yield f"--{boundary}\r\n{head}\r\n\r\n".encode()
        yield data
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()
