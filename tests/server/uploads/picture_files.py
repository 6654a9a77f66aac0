"""Picture files for tests: of every kind that people send, and some that nobody should."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Mapping

import numpy as np
from PIL import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def pixels_of(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Noise: no two pixels alike, so that a turned or shifted picture shows."""
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def saved(picture: Image.Image, picture_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, picture_format, **options)
    return buffer.getvalue()


def png(height: int = 6, width: int = 4, seed: int = 0) -> bytes:
    return saved(Image.fromarray(pixels_of(height, width, seed=seed)), "PNG")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(header: bytes, *chunks: bytes) -> bytes:
    return PNG_SIGNATURE + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


def bomb(width: int, height: int) -> bytes:
    """A small PNG file that says it is large, and keeps its word as far as it has data."""
    data = zlib.compress(bytes(2**24), 9)
    return png_of(struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), chunk(b"IDAT", data))


def form_of(request: object, files: Mapping[str, bytes], boundary: str = "b0undary") -> bytes:
    """A form as a browser sends it."""
    parts = [('name="request"\r\nContent-Type: application/json', json.dumps(request).encode())]
    parts += [(f'name="{name}"; filename="x.png"\r\nContent-Type: image/png', data) for name, data in files.items()]
    begin = f"--{boundary}\r\nContent-Disposition: form-data; "
    whole = b"".join(f"{begin}{head}\r\n\r\n".encode() + data + b"\r\n" for head, data in parts)
    return whole + f"--{boundary}--\r\n".encode()
