"""`POST /sdapi/v1/txt2img` and `/img2img`: draw while the caller waits, or until it is interrupted."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Body, Request, Response
from starlette.exceptions import HTTPException

from server.access.caller import caller_of
from server.access.scopes import needs
from server.errors import JobCancelledError
from server.jobs.blank_picture import blank_picture
from server.routes.a1111.answers import answer
from server.routes.a1111.options import model_of, options_of
from server.routes.a1111.sessions import Call
from server.routes.compat.door import DOOR, CompatRoute
from server.routes.compat.drawing import draw, foreign_job
from server.routes.dependencies import Service, ServiceOf
from server.routes.idempotency import IDEMPOTENCY_HEADER
from server.routes.responses import problem, problems
from server.schemas.a1111 import DrawRequest, Img2ImgRequest, Txt2ImgRequest

__all__ = ["ERRORS", "router"]

ERRORS = {
    **problems(400, 413, 415, 422, 503, 504),
    404: problem("Init image not found"),
    409: problem("The job was cancelled"),
    500: problem("The picture could not be drawn"),
}

router = APIRouter(
    prefix="/sdapi/v1", route_class=CompatRoute, tags=["AUTOMATIC1111"], dependencies=[*DOOR, needs("generate")]
)


@router.post(
    "/txt2img",
    summary="Draw from text (AUTOMATIC1111)",
    response_model=None,
    responses=ERRORS,
    openapi_extra=IDEMPOTENCY_HEADER,
)
async def txt2img(request: Request, body: Annotated[Txt2ImgRequest, Body()], service: ServiceOf) -> Response:
    """Draw `batch_size` times `n_iter` pictures as one job."""
    return await _drawn(request, body, service)


@router.post(
    "/img2img",
    summary="Draw over a picture (AUTOMATIC1111)",
    response_model=None,
    responses=ERRORS,
    openapi_extra=IDEMPOTENCY_HEADER,
)
async def img2img(request: Request, body: Annotated[Img2ImgRequest, Body()], service: ServiceOf) -> Response:
    """Draw over a picture, or over the white part of its mask."""
    if not body.init_images:
        raise HTTPException(404, "Init image not found")
    return await _drawn(request, body, service)


async def _drawn(request: Request, body: DrawRequest, service: Service) -> Response:
    key_id = caller_of(request).key_id
    session, options = service.a1111.of(key_id), await options_of(service, key_id)
    model = model_of({**options, **body.override_settings}, service.catalogue)
    wish = body.wish(model.defaults, options)
    if model is not service.catalogue.default:
        wish.model = model.name
    new = foreign_job(request, service, wish, api="a1111", output_format=body.output_format(options))
    timestamp = time.strftime("%Y%m%d%H%M%S")
    call = Call(
        job_id=new.id,
        task_id=body.force_task_id,
        num_batches=body.n_iter,
        batch_size=body.batch_size,
        timestamp=timestamp,
    )
    with session.waiting(call):
        try:
            record, images = await draw(request, service, new, wish.pictures)
        except JobCancelledError:
            if not call.is_interrupted:
                raise
            # Interrupted before it began. Callers read `images[0]`.
            record = await service.generator.find(new.id, None)
            height, width = new.params.answer_size
            images = (blank_picture(new.params.seed, width, height),)
    return answer(request, service, body, record, images, timestamp)
