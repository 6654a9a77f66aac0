"""A picture file -> a small one for lists. Runs on a thread of the gateway; only sees files that the engine wrote."""

from __future__ import annotations

import io

__all__ = ["thumbnail"]

_LONGEST_SIDE = 256
_QUALITY = 80


def thumbnail(data: bytes) -> bytes:
    """The picture as WebP, its longer side 256 pixels at most.

    Args:
        data: a PNG, WebP or JPEG file.
    """
    from PIL import Image  # noqa: PLC0415 -- most gateways never make one, and all would start later for it

    with Image.open(io.BytesIO(data), formats=("PNG", "WEBP", "JPEG")) as picture:
        small = picture.convert("RGB")
    small.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=_QUALITY)
    return buffer.getvalue()
