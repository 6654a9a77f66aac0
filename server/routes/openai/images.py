"""`POST /v1/images/generations`, `/edits` and `/variations`: drawing and drawing over, as OpenAI names it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Request, Response
from fastapi.responses import StreamingResponse

from server.access.scopes import needs
from server.routes.compat.door import DOOR, CompatRoute, FormRoute
from server.routes.compat.drawing import draw, foreign_job
from server.routes.dependencies import Service, ServiceOf
from server.routes.idempotency import IDEMPOTENCY_HEADER
from server.routes.openai.answers import answer
from server.routes.openai.stream import events
from server.routes.responses import problem, problems
from server.schemas.openai import EditRequest, ImagesRequest, ImagesResponse, VariationRequest, check_model

__all__ = ["forms", "router"]

_ERRORS = {
    **problems(400, 413, 415, 503, 504),
    404: problem("No such model"),
    409: problem("The job was cancelled"),
    500: problem("The picture could not be drawn"),
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The pictures; with `stream` server-sent events, as OpenAI has them",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    },
    **_ERRORS,
}

router = APIRouter(
    prefix="/v1/images", route_class=CompatRoute, tags=["OpenAI"], dependencies=[*DOOR, needs("generate")]
)
forms = APIRouter(prefix="/v1/images", route_class=FormRoute, tags=["OpenAI"], dependencies=[*DOOR, needs("generate")])


@router.post(
    "/generations",
    summary="Draw pictures (OpenAI)",
    response_model=ImagesResponse,
    responses=_RESPONSES,
    openapi_extra=IDEMPOTENCY_HEADER,
)
async def generations(request: Request, body: Annotated[ImagesRequest, Body()], service: ServiceOf) -> Response:
    """Draw pictures from a prompt. Settings of this server (`seed`, `sampler`, ...) stand beside OpenAI's fields."""
    return await _drawn(request, body, service, kind="image_generation")


@forms.post(
    "/edits",
    summary="Draw over a picture (OpenAI)",
    response_model=ImagesResponse,
    responses=_RESPONSES,
    openapi_extra=IDEMPOTENCY_HEADER,
)
async def edits(request: Request, body: Annotated[EditRequest, Body()], service: ServiceOf) -> Response:
    """Draw over a picture, or over the part of it where the mask is transparent."""
    return await _drawn(request, body, service, kind="image_edit")


@forms.post(
    "/variations",
    summary="Vary a picture (OpenAI)",
    response_model=ImagesResponse,
    responses={**_ERRORS},
    openapi_extra=IDEMPOTENCY_HEADER,
)
async def variations(request: Request, body: Annotated[VariationRequest, Body()], service: ServiceOf) -> Response:
    """Draw over a picture without a prompt."""
    return await _drawn(request, body, service, kind="image_edit")


async def _drawn(request: Request, body: ImagesRequest | VariationRequest, service: Service, *, kind: str) -> Response:
    others = {model.name for model in service.catalogue.models}
    check_model(body.model, service.settings.model_name, others)
    wish = body.wish()
    if body.model in others:
        wish.model = body.model
    output_format = body.output_format or "png"
    new = foreign_job(request, service, wish, api="openai", output_format=output_format)
    if isinstance(body, ImagesRequest) and body.stream:
        record = (await service.generator.submit(new, wish.pictures)).record
        request.state.log["job_id"] = record.id
        stream = events(
            service,
            record,
            kind=kind,
            num_previews=body.partial_images or 0,
            request_id=request.state.request_id,
        )
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "X-Job-Id": record.id}
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)
    record, images = await draw(request, service, new, wish.pictures)
    return answer(request, service, record, images, sends_urls=body.sends_urls)
