"""`POST /v1/image-info`: a picture in, how it was drawn out. Nothing is drawn, and nothing is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fastapi import APIRouter, Request

from server.access.foreign_pages import refuse_foreign_page
from server.access.scopes import needs
from server.routes.dependencies import ServiceOf
from server.routes.responses import problems
from server.routes.upload_route import FORM, JSON, UploadRoute, body_of, media_type_of
from server.schemas.image_info import ImageInfo
from server.worker.upload_messages import PictureKind

__all__ = ["router"]

_FIELD: Final = "image"
_FILES: Final = ("image/png", "image/jpeg", "image/webp")
_FILE_SCHEMA: Final = {"type": "string", "format": "binary"}


class _InfoRoute(UploadRoute):
    """Takes a picture in every way, but is no request for one."""

    @property
    def picture_fields(self) -> Mapping[str, PictureKind]:
        """The picture."""
        return {_FIELD: "picture"}


router = APIRouter(route_class=_InfoRoute, tags=["pictures"])


def _body_schema(schema: Mapping[str, object]) -> dict[str, Any]:
    properties = {_FIELD: schema}
    return {"schema": {"type": "object", "properties": properties, "required": [_FIELD], "additionalProperties": False}}


@router.post(
    "/v1/image-info",
    summary="Read how a picture was drawn",
    responses=problems(503, 400, 413, 415, 422),
    dependencies=[needs("generate")],
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                JSON: _body_schema({"type": "string", "contentEncoding": "base64"}),
                FORM: _body_schema(_FILE_SCHEMA),
                **{media_type: {"schema": _FILE_SCHEMA} for media_type in _FILES},
            },
        }
    },
)
async def image_info(request: Request, service: ServiceOf) -> ImageInfo:
    """Read the settings that this server, AUTOMATIC1111 and others write into their files. Pixels are not looked at."""
    media_type = media_type_of(request, (JSON, FORM, *_FILES))
    if media_type == FORM:
        refuse_foreign_page(request.headers, service.settings.cors_origins)
    reading = service.uploads.read_info(body_of(request), request.headers["content-type"])
    found = await service.generator.storage.ask(reading, timeout_s=None)
    return ImageInfo.of(found.text, found.source_type)
