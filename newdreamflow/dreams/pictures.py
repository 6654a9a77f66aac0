"""Storage of a dream's picture files: writes them under generated names, with thumbnails, and deletes them."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Final

from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from PIL import Image

from newdreamflow.dreams.models import Dream, Picture

__all__ = ["THUMBNAIL_PIXELS", "Drawn", "delete_files", "kept"]

THUMBNAIL_PIXELS: Final = 384
_SUFFIXES: Final = {"image/png": "png", "image/webp": "webp", "image/jpeg": "jpg"}


@dataclass(frozen=True, slots=True)
class Drawn:
    """A finished picture, as the GPU server gave it."""

    data: bytes
    media_type: str
    seed: int


def kept(dream: Dream, index: int, drawn: Drawn) -> Picture:
    """Write a picture's files; the row is not saved yet. The second time, the same files are written again."""
    picture = Picture(dream=dream, index=index, seed=drawn.seed, media_type=drawn.media_type, num_bytes=len(drawn.data))
    for field, name, data in (
        (picture.file, f"{index}.{_SUFFIXES[drawn.media_type]}", drawn.data),
        (picture.thumbnail, f"{index}-small.webp", _thumbnail(drawn.data)),
    ):
        path = field.field.generate_filename(picture, name)
        default_storage.delete(path)  # or the storage would choose another name
        field.name = default_storage.save(path, ContentFile(data))
    return picture


def delete_files(dream: Dream) -> None:
    """Remove a dream's files; also those without a row, left by a process that was killed."""
    try:
        _, names = default_storage.listdir(dream.folder)
    except FileNotFoundError:
        return
    for name in names:
        default_storage.delete(f"{dream.folder}/{name}")


def _thumbnail(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data), formats=["PNG", "JPEG", "WEBP"]) as image:
        image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS), Image.Resampling.LANCZOS)
        file = io.BytesIO()
        image.convert("RGB").save(file, "WEBP", quality=82)
    return file.getvalue()
