"""`POST /`, `/models/{id}` and `/hf-inference/models/{id}`: a text or a picture in, a picture file out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

from fastapi import APIRouter, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from server.access.scopes import needs
from server.catalogue import ServedModel
from server.errors import DrainingError, ModelNameError, NotAcceptableError
from server.routes.compat.door import DOOR, CompatRoute
from server.routes.compat.drawing import draw, foreign_job
from server.routes.dependencies import Service, ServiceOf
from server.routes.idempotency import IDEMPOTENCY_HEADER
from server.routes.negotiation import preferred
from server.routes.picture_headers import picture_headers
from server.routes.responses import PICTURE_FILES, problem, problems
from server.routes.upload_route import JSON, again, beginning_of, body_of, media_type_of
from server.schemas.generation import MEDIA_TYPES
from server.schemas.huggingface import HubRequest, is_picture
from server.strict_json import RepeatedNameError, strict_json
from server.worker.upload_messages import Layout, PictureKind

__all__ = ["router"]

_FILE = {"schema": {"type": "string", "format": "binary"}}
_RAW: Mapping[str, Layout] = MappingProxyType({"application/octet-stream": "raw", **dict.fromkeys(MEDIA_TYPES, "raw")})
_FIELDS: Mapping[str, PictureKind] = MappingProxyType({"inputs": "picture"})


class _HubRoute(CompatRoute):
    """Takes a picture as the body, or in JSON where a text might be. The route reads it itself."""

    layouts: ClassVar[Mapping[str, Layout]] = _RAW

    @property
    def picture_fields(self) -> Mapping[str, PictureKind]:
        """The picture."""
        return _FIELDS


router = APIRouter(route_class=_HubRoute, tags=["Hugging Face"], dependencies=DOOR)

_DOCUMENTED: dict[str, Any] = {
    "summary": "Draw a picture (Hugging Face)",
    "response_class": Response,
    "dependencies": [needs("generate")],
    "responses": {
        200: {"description": "The file", "content": PICTURE_FILES},
        **problems(400, 406, 413, 415, 503, 504),
        404: problem("No such model"),
        409: problem("The job was cancelled"),
        500: problem("The picture could not be drawn"),
    },
    "openapi_extra": {
        **IDEMPOTENCY_HEADER,
        "requestBody": {
            "required": True,
            "content": {
                JSON: {
                    "schema": {
                        "type": "object",
                        "properties": {
                            "inputs": {"type": "string", "description": "A prompt, or a picture in base64"},
                            "parameters": {"type": "object"},
                        },
                        "required": ["inputs"],
                        "examples": [{"inputs": "a cat on a mat"}],
                    }
                },
                **dict.fromkeys(_RAW, _FILE),
            },
        },
    },
}

ModelId = Annotated[str, Path(max_length=200)]


@router.post("/", **_DOCUMENTED)
async def draw_here(request: Request, service: ServiceOf) -> Response:
    """The address itself, where a client is given no model's name."""
    return await _drawn(request, service)


@router.post("/models/{model_id:path}", **_DOCUMENTED)
@router.post("/hf-inference/models/{model_id:path}", **_DOCUMENTED)
async def draw_with_model(request: Request, model_id: ModelId, service: ServiceOf) -> Response:
    """A model by its name."""
    model = _model_of(model_id, service)
    return await _drawn(request, service, None if model is service.catalogue.default else model.name)


@router.get(
    "/models/{model_id:path}/health",
    summary="Whether the model draws (Hugging Face)",
    dependencies=[needs("read")],
    responses={**problems(400, 503), 404: problem("No such model")},
)
async def health(model_id: ModelId, service: ServiceOf) -> dict[str, str]:
    """Of the address that a client was given."""
    _model_of(model_id, service)
    if not await service.generator.admission.is_open():
        raise DrainingError("the model cannot draw now; retry later", retry_after_s=5)
    return {"status": "ok"}


def _model_of(name: str, service: Service) -> ServedModel:
    model = service.catalogue.named(name)
    if model is None:
        raise ModelNameError("must be one of the names that GET /v1/models lists", field="model")
    return model


async def _drawn(request: Request, service: Service, model: str | None = None) -> Response:
    accept = preferred(",".join(request.headers.getlist("accept")), list(MEDIA_TYPES))
    if accept is None:
        raise NotAcceptableError(f"the header Accept must allow one of {', '.join(MEDIA_TYPES)}")
    if "idempotency-key" not in request.headers:  # a repeat may be answered all the same
        service.generator.admission.refuse_when_full()
    async with AsyncExitStack() as pictures:
        wish = _checked(await _values(request, service, pictures)).wish()
        wish.model = model
        new = foreign_job(request, service, wish, api="huggingface", output_format=MEDIA_TYPES[accept])
        record, [image] = await draw(request, service, new, wish.pictures)
    return Response(image.data, media_type=image.media_type, headers=picture_headers(request, record, service))


async def _values(request: Request, service: Service, pictures: AsyncExitStack) -> object:
    """The request as JSON, with its picture on the disk until `pictures` is closed."""
    chunks = body_of(request)
    if "content-type" not in request.headers:
        media_type = "application/octet-stream"  # what RFC 9110, 8.3, lets us assume
    else:
        media_type = media_type_of(request, [JSON, *_RAW])
    if media_type == JSON:
        head, is_whole = await beginning_of(chunks)
        if is_whole:
            values = _json(head)
            if not is_picture(values):
                return values
        chunks = again(head, chunks)
    reading = service.uploads.read(chunks, media_type, _FIELDS, _RAW.get(media_type, "request"))
    read = await service.generator.storage.ask(pictures.enter_async_context(reading), timeout_s=None)
    return read.values


def _json(body: bytes) -> object:
    try:
        return strict_json(body)
    except json.JSONDecodeError as error:
        raise HTTPException(400, f"the body must be valid JSON: {error.msg} at character {error.pos}") from None
    except RepeatedNameError as error:
        raise HTTPException(400, str(error)) from None
    except (UnicodeDecodeError, RecursionError, ValueError):
        raise HTTPException(400, "the body must be valid JSON in UTF-8, and not nested deeply") from None


def _checked(values: object) -> HubRequest:
    try:
        return HubRequest.model_validate(values)
    except ValidationError as error:
        found = [{**finding, "loc": ("body", *_place(finding["loc"]))} for finding in error.errors()]
        raise RequestValidationError(found) from None


def _place(place: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Without the name of the alternative that did not fit either."""
    return place[:1] if place[:1] == ("inputs",) else place
