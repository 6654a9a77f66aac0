"""Files in forms: one small one, in memory, in the form for a dream (a painted mask). Other forms take none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django.core.exceptions import RequestDataTooBig, TooManyFilesSent
from django.core.files.uploadhandler import MemoryFileUploadHandler
from django.urls import reverse

__all__ = ["MAX_FILE_BYTES", "SmallFiles"]

MAX_FILE_BYTES: Final = 192 * 1024
"""Many times a mask of the largest picture; with the form's words below what deploy/Caddyfile.site lets through."""


class SmallFiles(MemoryFileUploadHandler):
    """Refuses a larger one, as a form that is too long is refused: with status 400."""

    def handle_raw_input(
        self,
        input_data: Any,  # noqa: ANN401, ARG002 -- Django's own signature
        META: Mapping[str, Any],  # noqa: ARG002, N803 -- the same
        content_length: int,
        boundary: Any,  # noqa: ANN401, ARG002 -- the same
        encoding: str | None = None,  # noqa: ARG002 -- the same
    ) -> None:
        """Look at the whole body's length, before anything of it is read."""
        if content_length > MAX_FILE_BYTES + 64 * 1024:
            raise RequestDataTooBig(f"a form with a file has at most {MAX_FILE_BYTES} bytes")
        self.activated = True

    def new_file(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 -- Django's own signature
        """A file begins."""
        if self.request is None or self.request.path != reverse("dreams:new"):
            raise TooManyFilesSent("this form takes no file")
        super().new_file(*arguments, **named)

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes | None:
        """Take a piece of the file."""
        if start + len(raw_data) > MAX_FILE_BYTES:
            raise RequestDataTooBig(f"a file has at most {MAX_FILE_BYTES} bytes")
        return super().receive_data_chunk(raw_data, start)
