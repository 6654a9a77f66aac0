"""A picture file of a stranger -> plain pixels: PNG, JPEG and WebP by their content, bounded before they are decoded.

Orientation is applied, transparency is put on white, palettes, 16 bits and CMYK become 8-bit RGB; all else that a file
says of itself is dropped. Runs in a process of its own, which may crash: Pillow is given what strangers send.
"""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from server.picture_info.png import PNG_SIGNATURE
from server.worker.upload_messages import PictureKind

__all__ = ["MAX_SIDE", "PictureError", "Pixels", "name_of", "read_picture"]

Pixels = npt.NDArray[np.uint8]

MAX_SIDE: Final = 4096
"""Pixels; a picture then has 16.8 million at most."""

_ORIENTATION: Final = 0x0112
_TURNS: Final[Mapping[int, Image.Transpose]] = MappingProxyType(
    {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
)
"""EXIF's orientation -> what shows the picture upright."""

_KEPT_CHUNKS: Final = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf"})
"""Of a PNG file. Text, colour profiles and all else are never looked at."""
_MAX_EXIF_BYTES: Final = 2**16


class PictureError(Exception):
    """A picture cannot be read."""

    def __init__(self, rule: str, *, value: str | None = None) -> None:
        super().__init__(rule)
        self.rule = rule
        """A phrase after the field's name."""
        self.value = value
        """What breaks it; None where the file as a whole is not of a kind that is read."""


def read_picture(data: bytes, kind: PictureKind) -> Pixels:
    """Decode a file.

    Args:
        data: the file.
        kind: what it is read as.

    Returns:
        (height, width, 3), or (height, width) for any mask.

    Raises:
        PictureError: it is too large, damaged, animated, or of another kind.
    """
    try:
        picture_format, data = _recognised(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of metadata that is dropped anyway
            with Image.open(io.BytesIO(data), formats=(picture_format,)) as picture:
                _check_size(*picture.size)
                turn = _turn_of(picture)
                flat = _flattened(picture, kind)
        return np.asarray(flat if turn is None else flat.transpose(turn))
    except PictureError:
        raise
    except MemoryError:
        raise PictureError("needs more memory to be decoded than there is") from None
    except Exception:  # noqa: BLE001 -- decoders raise anything for what strangers send
        raise PictureError("must be a whole picture file; this one is damaged or cut off") from None


def name_of(pixels: Pixels) -> str:
    """SHA-256 of a picture: its shape and its pixels, hexadecimal."""
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def _recognised(data: bytes) -> tuple[str, bytes]:
    """The format that the bytes are in, and the file without what is not needed."""
    if data.startswith(PNG_SIGNATURE):
        return "PNG", b"".join([PNG_SIGNATURE, *_kept_chunks(data)])
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG", data
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        _check_webp(data)
        return "WEBP", data
    raise PictureError("must be a PNG, JPEG or WebP file")


def _kept_chunks(data: bytes) -> Iterator[memoryview]:
    """The chunks of a PNG file that its pixels depend on. Source: PNG specification (third edition), 5.3."""
    view, at = memoryview(data), len(PNG_SIGNATURE)
    while at + 12 <= len(view):
        (length,) = struct.unpack_from(">I", view, at)
        kind = bytes(view[at + 4 : at + 8])
        end = at + 12 + length
        if kind == b"IHDR" and length == 13:
            _check_size(*struct.unpack_from(">II", view, at + 8))
        if kind == b"acTL":
            raise _animated()
        if kind in _KEPT_CHUNKS and (kind != b"eXIf" or length <= _MAX_EXIF_BYTES):
            yield view[at:end]
        at = end
        if kind == b"IEND":
            return


def _check_webp(data: bytes) -> None:
    """Check what a WebP file says of its size: Pillow makes room for it as soon as it opens the file.

    Source: RFC 9649, 2.5 to 2.7 and 3.4.
    """
    kind, body = data[12:16], data[20:40]
    if kind == b"VP8X" and len(body) >= 10:
        if body[0] & 2:
            raise _animated()
        _check_size(1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little"))
    elif kind == b"VP8L" and len(body) >= 5:
        packed = int.from_bytes(body[1:5], "little")
        _check_size(1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF))
    elif kind == b"VP8 " and len(body) >= 10:
        width, height = struct.unpack_from("<HH", body, 6)
        _check_size(width & 0x3FFF, height & 0x3FFF)


def _check_size(width: int, height: int) -> None:
    if max(width, height) > MAX_SIDE:
        raise PictureError(f"must be at most {MAX_SIDE} pixels wide and high", value=f"{width}x{height}")


def _animated() -> PictureError:
    return PictureError("must be a single picture, not an animation")


def _turn_of(picture: Image.Image) -> Image.Transpose | None:
    try:
        return _TURNS.get(picture.getexif()[_ORIENTATION])
    except Exception:  # noqa: BLE001 -- there is none, or a broken one, which is no reason to refuse the picture
        return None


def _flattened(picture: Image.Image, kind: PictureKind) -> Image.Image:
    """8-bit RGB or grey, without transparency."""
    if picture.mode.startswith("I"):
        wide = np.asarray(picture).astype(np.uint32)
        picture = Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
    mode = "RGB" if kind == "picture" else "L"
    if "A" not in picture.mode.upper() and "transparency" not in picture.info:
        if kind == "transparent mask":
            raise PictureError("must have an alpha channel: what is transparent is changed", value=picture.mode)
        return picture.convert(mode)
    layered = picture.convert("RGBA")
    alpha = layered.getchannel("A")
    if kind == "transparent mask":
        return alpha.point(lambda level: 255 - level)
    if kind == "either mask" and alpha.getextrema() != (255, 255):
        return alpha
    flat = Image.new("RGB", layered.size, "white")
    flat.paste(layered, mask=layered.getchannel("A"))
    return flat.convert(mode)
