"""`POST /v1/upscale`: a picture in, a job that enlarges it out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Request, Response

from server.access.scopes import needs
from server.routes.dependencies import ServiceOf
from server.routes.idempotency import IDEMPOTENCY_HEADER
from server.routes.job_requests import job_of, note
from server.routes.jobs import SUBMIT_RESPONSES, accepted
from server.routes.upload_route import UploadRoute, upload_body
from server.schemas.jobs import JobView
from server.schemas.upscale import UpscaleRequest

__all__ = ["router"]

router = APIRouter(route_class=UploadRoute, tags=["pictures"])


@router.post(
    "/v1/upscale",
    status_code=202,
    summary="Enlarge a picture",
    response_model=JobView,
    responses=SUBMIT_RESPONSES,
    dependencies=[needs("generate")],
    openapi_extra={**IDEMPOTENCY_HEADER, **upload_body(UpscaleRequest)},
)
async def upscale(request: Request, body: Annotated[UpscaleRequest, Body()], service: ServiceOf) -> Response:
    """Accept a job as `POST /v1/jobs` does. Its picture is fetched, followed and cancelled as any other."""
    params = body.to_params(service.defaults)
    new = job_of(request, body, params, output_format=body.output_format or "png", is_bound=False)
    note(request, new, with_prompts=service.settings.log_prompts)
    state = await service.generator.submit(new, body.pictures)
    request.state.log["job_id"] = state.record.id
    return accepted(state, service, is_repeat=state.record.id != new.id)
