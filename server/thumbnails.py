"""Pictures in other sizes: thumbnails, on one separate thread, so that jobs never wait for them; previews enlarged."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

__all__ = ["Thumbnails", "enlarged", "thumbnail"]

_LONGEST_SIDE = 256
_QUALITY = 80


class Thumbnails:
    """Makes one thumbnail at a time. Belongs to the event loop's thread."""

    def __init__(self, make: Callable[[bytes], bytes] | None = None) -> None:
        """Start nothing yet.

        Args:
            make: how one is made; None is `thumbnail`.
        """
        self._make = make or thumbnail
        # Not asyncio's threads, which read and write the picture files.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="thumbnails")

    async def make(self, data: bytes) -> bytes:
        """See `thumbnail`."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._make, data)

    def close(self) -> None:
        """Make no more."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def thumbnail(data: bytes) -> bytes:
    """The picture as WebP, its longer side 256 pixels at most.

    Args:
        data: a PNG, WebP or JPEG file that the engine wrote.
    """
    from PIL import Image  # noqa: PLC0415 -- most gateways never make one, and all would start later for it

    with Image.open(io.BytesIO(data), formats=("PNG", "WEBP", "JPEG")) as picture:
        small = picture.convert("RGB")
    small.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=_QUALITY)
    return buffer.getvalue()


def enlarged(data: bytes, width: int, height: int) -> bytes:
    """A preview in the size of the finished picture, as PNG. Blocks for up to a second.

    Args:
        data: a preview that the engine wrote.
        width: pixels.
        height: pixels.
    """
    from PIL import Image  # noqa: PLC0415 -- as above

    with Image.open(io.BytesIO(data), formats=("PNG", "WEBP", "JPEG")) as picture:
        large = picture.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    large.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
