"""`GET /v1/backup`: a copy of the job store for the operator's command line. Not for other callers, not in the API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Final

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from server.access.caller import caller_of
from server.errors import OperatorOnlyError
from server.routes.dependencies import ServiceOf

__all__ = ["router"]

_CHUNK: Final = 2**20

router = APIRouter(include_in_schema=False)


@router.get("/v1/backup")
async def backup(request: Request, service: ServiceOf) -> StreamingResponse:
    """The database as it is now: everything that was acknowledged before this was asked."""
    if not caller_of(request).is_operator:
        raise OperatorOnlyError("use `python -m server backup FILE` on the server's machine")
    storage = service.generator.storage
    copy = await storage.ask(storage.store.snapshot(service.settings.server_folder), timeout_s=None)
    return StreamingResponse(_chunks(copy), media_type="application/vnd.sqlite3")


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while chunk := file.read(_CHUNK):
            yield chunk
