"""The picture that a dream is drawn over, and its mask: where they come from, and their private files."""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from PIL import Image

from newdreamflow.dreams import photos
from newdreamflow.dreams.models import AnyUser, Dream, Picture

__all__ = [
    "PHOTO",
    "Input",
    "InputLostError",
    "MaskError",
    "delete_files",
    "keep",
    "of_dream",
    "read",
    "read_mask",
    "source",
]

IMAGE: Final = "image.png"
MASK: Final = "mask.png"
PHOTO: Final = "photo"
"""How the address of an uploaded photo begins: `photo/NAME`."""
_ADDRESS: Final = re.compile(r"([0-9a-f-]{36})/([0-9]|input)")
_WHITE: Final = 128
"""The least grey that is drawn over."""


class InputLostError(Exception):
    """The file of a dream's input is not there any more."""


class MaskError(ValueError):
    """A mask cannot be used; the message is for its painter."""


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class Input:
    """What is drawn over."""

    image: bytes
    """A PNG file."""
    width: int
    """Pixels."""
    height: int
    mask: bytes | None = None
    """A PNG file of the same size, white where it is drawn over; None: all of it is."""

    def __repr__(self) -> str:
        # Equal for equal pictures: a form that is sent twice is recognised by it.
        return f"Input({hashlib.sha256(self.image + (self.mask or b'')).hexdigest()})"


def source(user: AnyUser, address: str) -> Input | None:
    """What a form names as its picture, without a mask; None if it is not there, or not this user's.

    Args:
        user: whose it must be.
        address: `UUID/INDEX` of a finished picture, `UUID/input`, or `photo/NAME`.
    """
    kind, _, name = address.partition("/")
    if kind == PHOTO:
        photo = photos.read(user, name)
        return None if photo is None else _input(photo)
    found = _ADDRESS.fullmatch(address)
    try:
        uuid = UUID(found[1]) if found else None
    except ValueError:
        uuid = None
    if found is None or uuid is None:
        return None
    try:
        if found[2] == "input":
            dream = Dream.objects.present().filter(user=user, uuid=uuid).exclude(strength=None).get()
            return _input(read(dream, IMAGE))
        of_user = Dream.objects.present().filter(user=user, uuid=uuid)
        picture = Picture.objects.get(dream__in=of_user, index=int(found[2]))
        with picture.file.open() as file:
            return _input(_as_png(file.read()))
    except (Dream.DoesNotExist, Picture.DoesNotExist, FileNotFoundError, InputLostError):
        return None


def of_dream(dream: Dream) -> Input | None:
    """What a dream is drawn over; None: nothing, words alone.

    Raises:
        InputLostError: its files are gone.
    """
    if dream.strength is None:
        return None
    return _input(read(dream, IMAGE), read(dream, MASK) if dream.has_mask else None)


def read(dream: Dream, name: str) -> bytes:
    """One of the two files: `IMAGE` or `MASK`.

    Raises:
        InputLostError: it is gone.
    """
    try:
        with default_storage.open(f"{_folder(dream)}/{name}") as file:
            return bytes(file.read())
    except FileNotFoundError:
        raise InputLostError(f"{name} of dream {dream.uuid} is not in the storage") from None


def keep(dream: Dream, given: Input) -> None:
    """Write the files beside those of the dream's pictures, and of nobody else's."""
    for name, data in ((IMAGE, given.image), (MASK, given.mask)):
        if data is not None:
            default_storage.save(f"{_folder(dream)}/{name}", ContentFile(data))


def delete_files(dream: Dream) -> None:
    """Remove them, also those whose dream was never written."""
    try:
        _, names = default_storage.listdir(_folder(dream))
    except FileNotFoundError:
        return
    for name in names:
        default_storage.delete(f"{_folder(dream)}/{name}")


def read_mask(data: bytes, width: int, height: int) -> bytes:
    """A mask as it came from a browser, written anew: black and white, of the picture's size, without anything else.

    Raises:
        MaskError: it is no such picture, or nothing is marked in it.
    """
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.size != (width, height):
                raise MaskError(f"The mask must have the size of the picture, {width} × {height} pixels.")
            marked = image.convert("L").point(lambda grey: 255 if grey >= _WHITE else 0, mode="1")
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, MaskError):
            raise
        raise MaskError("The mask must be a PNG file.") from None
    if marked.getbbox() is None:
        raise MaskError("Nothing is marked. Paint over the part to redraw.")
    file = io.BytesIO()
    marked.save(file, "PNG")
    return file.getvalue()


def _folder(dream: Dream) -> str:
    return f"{dream.folder}/input"


def _as_png(data: bytes) -> bytes:
    """The pixels alone."""
    with Image.open(io.BytesIO(data), formats=["PNG", "JPEG", "WEBP"]) as image:
        file = io.BytesIO()
        # Made of its pixels: what the file says beside them stays behind.
        Image.frombytes("RGB", image.size, image.convert("RGB").tobytes()).save(file, "PNG")
    return file.getvalue()


def _input(image: bytes, mask: bytes | None = None) -> Input:
    with Image.open(io.BytesIO(image), formats=["PNG"]) as opened:
        width, height = opened.size
    return Input(image=image, width=width, height=height, mask=mask)
