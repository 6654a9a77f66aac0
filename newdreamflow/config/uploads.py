"""Files in forms: one, in memory, in the form for a dream: a painted mask or a photo. Other forms take none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django.core.exceptions import RequestDataTooBig, TooManyFilesSent
from django.core.files.uploadhandler import MemoryFileUploadHandler
from django.urls import reverse

from newdreamflow.dreams import photos

__all__ = ["MAX_FILE_BYTES", "SmallFiles"]

_PHOTO: Final = "photo"
_ROOM_FOR_WORDS: Final = 64 * 1024

MAX_FILE_BYTES: Final = 192 * 1024
"""Many times a mask of the largest picture."""


class SmallFiles(MemoryFileUploadHandler):
    """Refuses a larger one, as a form that is too long is refused: with status 400. Photos need an account."""

    def handle_raw_input(
        self,
        input_data: Any,  # noqa: ANN401, ARG002 -- Django's own signature
        META: Mapping[str, Any],  # noqa: ARG002, N803 -- the same
        content_length: int,
        boundary: Any,  # noqa: ANN401, ARG002 -- the same
        encoding: str | None = None,  # noqa: ARG002 -- the same
    ) -> None:
        """Look at the whole body's length, before anything of it is read."""
        longest = (photos.MAX_BYTES if self._is_for_dreams else MAX_FILE_BYTES) + _ROOM_FOR_WORDS
        if content_length > longest:
            raise RequestDataTooBig(f"this form has at most {longest} bytes")
        self.activated = True

    def new_file(self, field_name: str, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 -- Django's own signature
        """A file begins."""
        if self.request is None or not self._is_for_dreams:
            raise TooManyFilesSent("this form takes no file")
        is_photo = field_name == _PHOTO
        if is_photo and not self.request.user.is_authenticated:
            raise TooManyFilesSent("a photo needs an account")
        self._longest = photos.MAX_BYTES if is_photo else MAX_FILE_BYTES
        super().new_file(field_name, *arguments, **named)

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes | None:
        """Take a piece of the file."""
        if start + len(raw_data) > self._longest:
            raise RequestDataTooBig(f"this file has at most {self._longest} bytes")
        return super().receive_data_chunk(raw_data, start)

    @property
    def _is_for_dreams(self) -> bool:
        return self.request is not None and self.request.path == reverse("dreams:new")
