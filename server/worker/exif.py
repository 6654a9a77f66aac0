"""The information text in EXIF's UserComment: of JPEG and WebP files, written, and read from anybody's file.

Source: Exif 2.32, 4.6.5 (UserComment); what is written is what A1111 writes: UTF-16, most significant byte first.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from PIL import Image

from server.picture_info.grammar import MAX_TEXT_BYTES
from server.picture_info.png import PNG_SIGNATURE, png_chunks, text_of_png

__all__ = ["exif_of", "is_picture_file", "jpeg_segments", "text_of_file", "webp_chunks"]

_EXIF_IFD: Final = 0x8769
_USER_COMMENT: Final = 0x9286
_UNICODE: Final = b"UNICODE\0"
_ASCII: Final = b"ASCII\0\0\0"
_NO_CODE: Final = bytes(8)
_JPEG_SIGNATURE: Final = b"\xff\xd8\xff"
_APP1: Final = 0xE1
_JPEG_MARK: Final = b"Exif\0\0"
_MAX_EXIF_BYTES: Final = 65527
"""What a JPEG file's segment holds: two bytes count its length, which counts them and the mark too."""
_MAX_READ_BYTES: Final = 4 * MAX_TEXT_BYTES


def exif_of(text: str) -> bytes:
    """An EXIF block with a text; empty if it would be too long for a JPEG file."""
    exif = Image.Exif()
    exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = _UNICODE + text.encode("utf-16-be")
    block = exif.tobytes()
    return block if len(block) <= _MAX_EXIF_BYTES else b""


def text_of_file(data: bytes) -> str | None:
    """The information text of a PNG, JPEG or WebP file; None if it has none, or is none of these. Decodes no pixels."""
    if data.startswith(PNG_SIGNATURE):
        return text_of_png(data) or _text_of(_exif_of_png(data))
    if data.startswith(_JPEG_SIGNATURE):
        blocks = (body for marker, body in jpeg_segments(data) if marker == _APP1 and body.startswith(_JPEG_MARK))
        return _text_of(next(blocks, b""))
    if not _is_webp(data):
        return None
    return _text_of(next((body for kind, body in webp_chunks(data) if kind == b"EXIF"), b""))


def is_picture_file(data: bytes) -> bool:
    """Whether it is a PNG, JPEG or WebP file by its first bytes."""
    return data.startswith((PNG_SIGNATURE, _JPEG_SIGNATURE)) or _is_webp(data)


def _is_webp(data: bytes) -> bool:
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def _exif_of_png(data: bytes) -> bytes:
    return next((bytes(body) for kind, body in png_chunks(data) if kind == b"eXIf"), b"")


def jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and body of each segment before the scan. Source: ITU-T T.81, B.1.1.4."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", data, at + 2)
        yield data[at + 1], data[at + 4 : at + 2 + length]
        at += 2 + length


def webp_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and data of each chunk; each is filled up to an even length. Source: RFC 9649, 2.3."""
    at = 12
    while at + 8 <= len(data):
        (length,) = struct.unpack_from("<I", data, at + 4)
        yield data[at : at + 4], data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def _text_of(block: bytes) -> str | None:
    """The text in a block of anybody's."""
    if not block or len(block) > _MAX_READ_BYTES:
        return None
    try:
        exif = Image.Exif()
        exif.load(block)
        comment = exif.get_ifd(_EXIF_IFD).get(_USER_COMMENT)
    except Exception:  # noqa: BLE001 -- Pillow raises anything for what strangers send
        return None
    if not isinstance(comment, bytes) or len(comment) <= len(_UNICODE):
        return None
    text = _decoded(comment[:8], comment[8:])
    return text if text and len(text.encode(errors="replace")) <= MAX_TEXT_BYTES else None


def _decoded(code: bytes, content: bytes) -> str | None:
    """A comment's text. Which byte comes first, files do not say: that of Latin letters is 0."""
    if code == _UNICODE:
        is_little = content.startswith(b"\xff\xfe") or content[1::2].count(0) > content[::2].count(0)
        text = content.decode("utf-16-le" if is_little else "utf-16-be", errors="replace").lstrip("\ufeff")
    elif code in {_ASCII, _NO_CODE}:
        text = content.decode(errors="replace")
    else:
        return None
    return text.strip("\0 ") or None
