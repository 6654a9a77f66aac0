"""A grey picture, where there must be one and nothing has been drawn."""

from __future__ import annotations

import struct
import zlib

from server.store.record import Picture

__all__ = ["blank_picture"]

_GREY = 0x80


def blank_picture(seed: int, width: int, height: int) -> Picture:
    """A PNG file of that size, all grey. Source: PNG specification (third edition), 11.2."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes([0, *[_GREY] * width]) * height, 9)
    chunks = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    data = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return Picture(seed, "image/png", b"\x89PNG\r\n\x1a\n" + data)
