"""Photos that users upload to begin a dream with: their limits, how they are read, and how long they are kept.

A photo waits in a private folder of its user until the form is sent; a dream then has its own copy (`inputs.py`).
"""

from __future__ import annotations

import datetime
import hashlib
import io
import re
import struct
import threading
from typing import Final

from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.utils import timezone
from PIL import Image, ImageOps

from newdreamflow.dreams.models import AnyUser

__all__ = [
    "KEPT_HOURS",
    "MAX_BYTES",
    "PhotoError",
    "decode",
    "delete_all",
    "delete_copy",
    "delete_expired",
    "is_name",
    "keep",
    "read",
]

MAX_BYTES: Final = 8 * 1024 * 1024
"""Of the file; browsers with JavaScript send much smaller ones (`photo_form.js`)."""
MAX_PIXELS: Final = 25_000_000
KEPT_HOURS: Final = 24
_MOST_KEPT: Final = 10
"""Of one user; the oldest ones go first."""
_LONGEST_RATIO: Final = 3
_MULTIPLE: Final = 16
"""Of width and height: every model family takes it."""
_FOLDER: Final = "photos"
_NAME: Final = re.compile("[0-9a-f]{64}")
_TOO_MANY_PIXELS: Final = f"The photo must have at most {MAX_PIXELS // 10**6} million pixels."
_FORMATS: Final = ("PNG", "JPEG", "WEBP")

_decoding: Final = threading.Lock()
"""One at a time in a process: a large photo takes up to 200 MB while it is decoded."""


class PhotoError(ValueError):
    """A photo cannot be used; the message is for its user."""


def decode(data: bytes, long_side: int) -> bytes:
    """A photo as a PNG file: upright, without transparency, and nothing else of the file.

    Args:
        data: the file as it was uploaded.
        long_side: pixels of the result's longer side; the other one follows, and what stands out is cut off.

    Raises:
        PhotoError: it is not a picture that can be used. Type and size are checked before pixels are decoded.
    """
    if len(data) > MAX_BYTES:
        raise PhotoError(f"The photo must be at most {MAX_BYTES // 2**20} MB.")
    _check_webp(data)
    try:
        with _decoding, Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _check_size(*image.size)
            _check_single(image)
            image.draft("RGB", (long_side, long_side))
            upright = _opaque(ImageOps.exif_transpose(image))
            fitted = ImageOps.fit(upright, _fitted(*upright.size, long_side), Image.Resampling.LANCZOS)
            # Made of its pixels: what the file says beside them (place, camera) stays behind.
            file = io.BytesIO()
            Image.frombytes("RGB", fitted.size, fitted.tobytes()).save(file, "PNG")
    except PhotoError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # before we have seen its size
        raise PhotoError(_TOO_MANY_PIXELS) from None
    except Exception:  # noqa: BLE001 -- Pillow raises anything for broken files
        raise PhotoError("The photo must be a PNG, JPEG or WebP file.") from None
    return file.getvalue()


def keep(user: AnyUser, png: bytes) -> str:
    """Store a photo for its user until the form is sent.

    Returns:
        Its name.
    """
    name = hashlib.sha256(png).hexdigest()
    path = _path(user.pk, name)
    default_storage.delete(path)  # its age begins anew
    default_storage.save(path, ContentFile(png))
    by_age = sorted(_paths(user.pk), key=default_storage.get_modified_time, reverse=True)
    for old in by_age[_MOST_KEPT:]:
        default_storage.delete(old)
    return name


def is_name(name: str) -> bool:
    """Whether a photo can have this name."""
    return _NAME.fullmatch(name) is not None


def read(user: AnyUser, name: str) -> bytes | None:
    """The PNG file of a user's own photo; None if it is not there."""
    if not is_name(name):
        return None
    try:
        with default_storage.open(_path(user.pk, name)) as file:
            return bytes(file.read())
    except FileNotFoundError:
        return None


def delete_copy(user_pk: object, png: bytes) -> None:
    """Remove the photo that a dream was begun with: the dream is deleted."""
    default_storage.delete(_path(user_pk, hashlib.sha256(png).hexdigest()))


def delete_all(user_pk: object) -> None:
    """Remove every photo of a user."""
    for path in _paths(user_pk):
        default_storage.delete(path)


def delete_expired() -> None:
    """Remove photos that are older than `KEPT_HOURS`."""
    oldest = timezone.now() - datetime.timedelta(hours=KEPT_HOURS)
    for user_pk in _listed(_FOLDER)[0]:
        for path in _paths(user_pk):
            try:
                if default_storage.get_modified_time(path) < oldest:
                    default_storage.delete(path)
            except FileNotFoundError:
                continue  # deleted meanwhile


def _path(user_pk: object, name: str) -> str:
    return f"{_FOLDER}/{user_pk}/{name}.png"


def _paths(user_pk: object) -> list[str]:
    folder = f"{_FOLDER}/{user_pk}"
    return [f"{folder}/{name}" for name in _listed(folder)[1]]


def _listed(folder: str) -> tuple[list[str], list[str]]:
    try:
        return default_storage.listdir(folder)
    except FileNotFoundError:
        return [], []


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise PhotoError(_TOO_MANY_PIXELS)
    if max(width, height) > _LONGEST_RATIO * min(width, height):
        raise PhotoError(f"The photo must be at most {_LONGEST_RATIO} times as long as it is wide or high.")


def _check_single(image: Image.Image) -> None:
    if getattr(image, "is_animated", False):
        raise PhotoError("The photo must be a single picture, not an animation.")


def _check_webp(data: bytes) -> None:
    """Check what a WebP file says of its size: Pillow allocates memory for it as soon as it opens the file.

    Source: RFC 9649, 2.5 to 2.7 and 3.4.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return
    kind, body = data[12:16], data[20:30]
    if kind == b"VP8X":
        _check_size(1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little"))
    elif kind == b"VP8L":
        packed = int.from_bytes(body[1:5], "little")
        _check_size(1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF))
    else:
        width, height = struct.unpack_from("<HH", body, 6)
        _check_size(width & 0x3FFF, height & 0x3FFF)


def _fitted(width: int, height: int, long_side: int) -> tuple[int, int]:
    scale = long_side / max(width, height)
    multiples = [max(1, round(side * scale / _MULTIPLE)) for side in (width, height)]
    return multiples[0] * _MULTIPLE, multiples[1] * _MULTIPLE


def _opaque(image: Image.Image) -> Image.Image:
    """In RGB, over white."""
    if image.mode.startswith("I;16"):
        # The more significant bytes; Pillow's own conversion clips.
        is_big = image.mode == "I;16B"
        image = Image.frombytes("L", image.size, image.tobytes()[0 if is_big else 1 :: 2])
    if not image.has_transparency_data:
        return image.convert("RGB")
    layers = image.convert("RGBA")
    opaque = Image.new("RGB", image.size, "white")
    opaque.paste(layers, mask=layers.getchannel("A"))
    return opaque
