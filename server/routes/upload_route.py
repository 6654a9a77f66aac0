"""Routes whose requests may bring pictures: who asks is known before the body is read, and large bodies go to the disk.

JSON with pictures in base64, or multipart/form-data: a part `request` with the JSON and a file for each picture, named
like its field. Small JSON without pictures is read as on every other route.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from types import MappingProxyType
from typing import Any, ClassVar, Final

from fastapi import Request, Response
from pydantic import BaseModel
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect

from server.access.body_limit import MAX_BODY_BYTES
from server.access.caller import caller_of
from server.access.foreign_pages import refuse_foreign_page
from server.access.scopes import require_scope
from server.errors import ClientGoneError, UnsupportedMediaTypeError
from server.routes.dependencies import Service
from server.routes.strict_requests import StrictRequest, StrictRoute
from server.schemas.pictures import picture_fields
from server.strict_json import strict_json
from server.worker.upload_messages import Layout, PictureKind

__all__ = [
    "FORM",
    "JSON",
    "UploadRoute",
    "again",
    "beginning_of",
    "body_of",
    "media_type_of",
    "paths_with_uploads",
    "upload_body",
]

JSON: Final = "application/json"
FORM: Final = "multipart/form-data"


class UploadRoute(StrictRoute):
    """A route that asks for pictures; with a body whose model has fields for pictures, they may come with it."""

    layouts: ClassVar[Mapping[str, Layout]] = MappingProxyType({FORM: "request"})
    """Media types of bodies with pictures beside JSON, and how those are made up."""

    @property
    def picture_fields(self) -> Mapping[str, PictureKind]:
        """Those of its body."""
        model = self.body_field.field_info.annotation if self.body_field is not None else None
        return picture_fields(model) if isinstance(model, type) and issubclass(model, BaseModel) else {}

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, which gets a request that was read already."""
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle
        fields = self.picture_fields

        async def handler(request: Request) -> Response:
            require_scope(caller_of(request), "generate")
            service: Service = request.app.state.service
            media_type = media_type_of(request, [JSON, *self.layouts] if fields else [JSON])
            if media_type != JSON:
                refuse_foreign_page(request.headers, service.settings.cors_origins)
            if "idempotency-key" not in request.headers:  # a repeat may be answered all the same
                service.generator.admission.refuse_when_full()
            async with AsyncExitStack() as pictures:
                layout = self.layouts.get(media_type)
                return await handle(await _read(request, service, layout, fields, pictures))

        return handler


def paths_with_uploads(routes: Iterable[object]) -> list[re.Pattern[str]]:
    """The paths of those that take pictures."""
    return [route.path_regex for route in routes if isinstance(route, UploadRoute) and route.picture_fields]


def upload_body(model: type[BaseModel]) -> dict[str, Any]:
    """The form that the OpenAPI document describes beside the JSON."""
    files = {name: {"type": "string", "format": "binary"} for name in picture_fields(model)}
    rule = f"The fields of `{model.__name__}`, without the pictures that are parts of their own"
    schema = {
        "type": "object",
        "properties": {"request": {"type": "object", "description": rule}, **files},
        "required": ["request"],
        "additionalProperties": False,
    }
    encoding = {"request": {"contentType": JSON}, **{name: {"contentType": "image/*"} for name in files}}
    return {"requestBody": {"content": {FORM: {"schema": schema, "encoding": encoding}}}} if files else {}


class _KnownRequest(StrictRequest):
    """A request whose body was read: to everybody else, JSON."""

    def __init__(self, request: Request, values: object) -> None:
        scope = {**request.scope, "headers": list(request.scope["headers"])}
        MutableHeaders(scope=scope)["content-type"] = JSON
        super().__init__(scope, request.receive)
        self._values = values

    async def body(self) -> bytes:
        """Something, so that it counts as sent."""
        return b"{}"

    async def json(self) -> Any:  # noqa: ANN401 -- JSON is anything
        """The values; a picture stands where its file was."""
        return self._values


class _SmallRequest(StrictRequest):
    """A request whose body was taken off the line, and is yet to be parsed."""

    def __init__(self, request: Request, body: bytes) -> None:
        super().__init__(request.scope, request.receive)
        self._body = body


async def _read(
    request: Request,
    service: Service,
    layout: Layout | None,
    fields: Mapping[str, PictureKind],
    pictures: AsyncExitStack,
) -> Request:
    """The request with its body, and with its pictures on the disk until `pictures` is closed.

    Args:
        request: its body is not read yet.
        service: what reads it.
        layout: of the body; None: JSON.
        fields: those that hold pictures.
        pictures: what is removed afterwards.
    """
    if not fields:
        return request
    chunks = body_of(request)
    if layout is None:
        head, is_whole = await beginning_of(chunks)
        if is_whole and not _has_pictures(head, fields):
            return _SmallRequest(request, head)
        chunks = again(head, chunks)
    reading = service.uploads.read(chunks, request.headers["content-type"], fields, layout or "request")
    read = await service.generator.storage.ask(pictures.enter_async_context(reading), timeout_s=None)
    return _KnownRequest(request, read.values)


async def body_of(request: Request) -> AsyncIterator[bytes]:
    """The body as it comes.

    Raises:
        ClientGoneError: the client has gone before all of it has come.
    """
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect:
        raise ClientGoneError("the client disconnected before it had sent its whole request") from None


async def beginning_of(chunks: AsyncIterator[bytes]) -> tuple[bytes, bool]:
    """As much as fits in memory, and whether that is all."""
    head = bytearray()
    async for chunk in chunks:
        head += chunk
        if len(head) > MAX_BODY_BYTES:
            return bytes(head), False
    return bytes(head), True


async def again(head: bytes, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """A body from its start, of which that much was taken already."""
    yield head
    async for chunk in chunks:
        yield chunk


def _has_pictures(body: bytes, fields: Mapping[str, PictureKind]) -> bool:
    """Whether a small body may have any; one that cannot be parsed is FastAPI's to refuse."""
    if not any(f'"{field.partition(".")[0]}"'.encode() in body for field in fields) and b"\\u" not in body:
        return False  # as nearly all: parsed once
    try:
        values = strict_json(body)
    except Exception:  # noqa: BLE001 -- it is parsed once more, and refused in the usual words
        return False
    names = {field.partition(".")[0] for field in fields}
    return isinstance(values, dict) and any(isinstance(values.get(name), str | list | dict) for name in names)


def media_type_of(request: Request, allowed: Sequence[str]) -> str:
    """What the body is declared to be.

    Args:
        request: which has a body.
        allowed: media types that are read here.

    Raises:
        UnsupportedMediaTypeError: nothing that is read here.
    """
    # Also what keeps web pages out: a browser sends JSON to a foreign server only after asking it; see CORS_ORIGINS.
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in allowed or len(request.headers.getlist("content-type")) != 1:
        raise UnsupportedMediaTypeError(f"the header Content-Type must be {' or '.join(allowed)}")
    return media_type
