"""From the body of a request to its JSON and its pictures: spooled to the disk, read in another process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from starlette.exceptions import HTTPException

from engine.errors import InvalidParamsError
from server.errors import UnsupportedImageError, UploadTooLargeError
from server.store.errors import StoreUnavailableError
from server.store.input_files import UploadedPicture
from server.uploads.reader import UploadReader
from server.uploads.spool import Spool
from server.worker.upload_messages import Answer, Layout, NoRoom, NotJson, PictureInfo, PictureKind, Upload

__all__ = ["ReadRequest", "Uploads"]

_FIELD_NAME: Final = re.compile(r"[\w-]{1,31}(\.[\w-]{1,31})*", re.ASCII)
"""Short enough to be no API key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRequest:
    """A request with pictures, read."""

    values: object
    """Its JSON; a picture stands where its file was."""
    pictures: tuple[UploadedPicture, ...]


class Uploads:
    """Reads requests with pictures. Belongs to the event loop's thread."""

    def __init__(self, folder: Path, reader: UploadReader | None = None) -> None:
        """Start nothing yet.

        Args:
            folder: where pictures and bodies lie meanwhile.
            reader: what reads them; None is one for the folder.
        """
        self._folder = folder
        self._spool = Spool(folder)
        self.reader = reader or UploadReader(folder)

    @contextlib.asynccontextmanager
    async def read(
        self,
        chunks: AsyncIterator[bytes],
        content_type: str,
        fields: Mapping[str, PictureKind],
        layout: Layout = "request",
    ) -> AsyncGenerator[ReadRequest, None]:
        """A request whose pictures lie on the disk for as long as it is worked on; what no job took is then removed.

        Raises:
            HTTPException: 400, it is malformed.
            ServerError: it is too large, or holds what is no picture.
            InvalidParamsError: a picture breaks a rule.
            StoreUnavailableError: the disk takes no more.
        """
        async with self._spool.taken(chunks) as body:
            answer = await self.reader.read(body, content_type, fields, layout)
        if not isinstance(answer, Upload):
            raise _error_of(answer)
        pictures = {
            field: UploadedPicture(
                sha256=file.sha256,
                width=file.width,
                height=file.height,
                num_bytes=file.num_bytes,
                path=self._folder / Path(file.name).name,
            )
            for field, file in answer.pictures.items()
        }
        values = json.loads(answer.rest)
        for place, picture in pictures.items():
            _put(values, place.split("."), picture)
        try:
            yield ReadRequest(values=values, pictures=tuple(pictures.values()))
        finally:
            if pictures:
                await asyncio.shield(asyncio.to_thread(_remove, [picture.path for picture in pictures.values()]))

    async def read_info(self, chunks: AsyncIterator[bytes], content_type: str) -> PictureInfo:
        """What the file of the picture in a request says of how it was drawn.

        Raises:
            as `read`, but for InvalidParamsError.
        """
        async with self._spool.taken(chunks) as body:
            answer = await self.reader.read_info(body, content_type)
        if not isinstance(answer, PictureInfo):
            raise _error_of(answer)
        return answer

    def close(self) -> None:
        """Read no more."""
        self.reader.close()
        self._spool.close()


def _put(values: Any, place: Sequence[str], picture: UploadedPicture) -> None:  # noqa: ANN401 -- JSON is anything
    """Put a picture where its file was."""
    *way, last = place
    for name in way:
        values = values[int(name) if isinstance(values, list) else name]
    values[int(last) if isinstance(values, list) else last] = picture


def _error_of(answer: Answer) -> Exception:
    """The error that a caller gets for an upload that was refused."""
    match answer:
        case Upload() | PictureInfo():
            raise AssertionError("an answer to another question")
        case NoRoom():
            return StoreUnavailableError(f"an uploaded picture cannot be written: {answer.why}")
        case NotJson():
            return HTTPException(400, f"the body must be valid JSON: {answer.why} at character {answer.position}")
    field = answer.field if answer.field is None or _FIELD_NAME.fullmatch(answer.field) else "a part"
    match answer.why:
        case "too_large":
            return UploadTooLargeError(answer.rule, field=field)
        case "unsupported":
            return UnsupportedImageError(answer.rule, field=field)
        case "invalid":
            return InvalidParamsError(field or "body", answer.rule, answer.value)
        case "malformed":
            return HTTPException(400, answer.rule)


def _remove(paths: list[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):  # housekeeping will
            path.unlink(missing_ok=True)
