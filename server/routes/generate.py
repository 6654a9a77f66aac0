"""`POST /generate`: draws pictures while the caller waits."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Request, Response
from fastapi.responses import JSONResponse

from engine.params import GenerationParams
from server.access.scopes import needs
from server.errors import NotAcceptableError
from server.routes.dependencies import ServiceOf
from server.routes.hang_up import until_hang_up
from server.routes.idempotency import IDEMPOTENCY_HEADER, idempotency_key
from server.routes.job_requests import EXAMPLES, job_of, note
from server.routes.jobs import accepted
from server.routes.negotiation import preferred, preferred_wait_s
from server.routes.picture_headers import is_truncated_in, picture_headers
from server.routes.responses import PICTURE_FILES, problem, problems
from server.routes.upload_route import UploadRoute, upload_body
from server.schemas.generation import MEDIA_TYPES, GenerateRequest, GenerateResponse
from server.schemas.jobs import JobView

__all__ = ["router"]

_JSON = "application/json"

_PICTURE_HEADERS: dict[str, dict[str, object]] = {
    "X-Job-Id": {"description": "The job's id, as in `/v1/jobs/{id}`", "schema": {"type": "string"}},
    "X-Seed": {"description": "Draws the same picture again", "schema": {"type": "integer"}},
    "X-Model-Id": {"description": "The model, percent-encoded", "schema": {"type": "string"}},
    "X-Sampler": {"schema": {"type": "string"}},
    "X-Noise-Schedule": {"schema": {"type": "string"}},
    "X-Engine-Class": {
        "description": "Of the engine that drew it: the same request gives the same bytes on every engine of the class",
        "schema": {"type": "string"},
    },
    "X-Prompt-Truncated": {
        "description": "Whether the text encoder could not read all of the prompt",
        "schema": {"type": "string", "enum": ["true", "false"]},
    },
    "X-Request-Id": {"schema": {"type": "string"}},
    "Server-Timing": {
        "description": "Milliseconds: `queue`, `encode`, `denoise`, `decode`, `png` (the file, whatever its format)",
        "schema": {"type": "string"},
    },
}

_RESPONSES: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "With an `Idempotency-Key`: not finished in time; retry, or follow `Location`",
        "model": JobView,
        "headers": {"Location": {"schema": {"type": "string"}}},
    },
    200: {
        "description": "One picture: its file. Several, or if `Accept` prefers JSON: JSON.",
        "headers": _PICTURE_HEADERS,
        "content": PICTURE_FILES,
    },
    **problems(400, 406, 413, 415, 422, 504),
    409: problem("The job was cancelled, or no engine is of the class that it demands"),
    503: problem("The queue is full, the model cannot be served, the engine failed, or the server is shutting down"),
}


router = APIRouter(route_class=UploadRoute, tags=["pictures"])


@router.post(
    "/generate",
    summary="Draw pictures from a prompt",
    response_model=GenerateResponse,
    responses=_RESPONSES,
    dependencies=[needs("generate")],
    openapi_extra={**IDEMPOTENCY_HEADER, **upload_body(GenerateRequest)},
)
async def generate(
    request: Request,
    body: Annotated[GenerateRequest, Body(openapi_examples=EXAMPLES)],
    service: ServiceOf,
) -> Response:
    """Draw pictures and wait for them.

    Without `Idempotency-Key`, a disconnect cancels the job before its next step. With one, the job goes on, a repeat
    finds it, and one that takes longer than `REQUEST_TIMEOUT` or `Prefer: wait=N` is answered with 202 and `Location`.
    With the same seed, settings and server the same request gives the same bytes, whatever else runs at the same time.
    """
    params = body.to_params(service.catalogue.defaults_of(body.model))
    answer_type, output_format = _negotiated(request, body, params)
    is_bound = idempotency_key(request) is None
    new = job_of(request, body, params, output_format=output_format, is_bound=is_bound)
    note(request, new, with_prompts=service.settings.log_prompts)
    wait_s = None if is_bound else preferred_wait_s(request.headers.getlist("prefer"))
    what_becomes = "its job was cancelled" if is_bound else "its job goes on because it has an Idempotency-Key"
    drawing = service.generator.draw(new, body.pictures, wait_s=wait_s)
    record, images = await until_hang_up(request, drawing, what_becomes)
    request.state.log["job_id"] = record.id
    if images is None:
        return accepted(service.generator.states.of(record), service, is_repeat=False)
    if answer_type not in {_JSON, images[0].media_type}:
        raise NotAcceptableError(f"the job was drawn as {images[0].media_type} when its Idempotency-Key was first used")
    params = record.new.params  # a repeat has the seed that was drawn the first time
    is_truncated = is_truncated_in(record)
    headers = picture_headers(request, record, service)
    if answer_type == _JSON:
        answer = GenerateResponse.of(images, params, service.settings.model_name, is_truncated=is_truncated)
        return JSONResponse(answer.model_dump(), headers=headers)
    return Response(images[0].data, media_type=images[0].media_type, headers=headers)


def _negotiated(request: Request, body: GenerateRequest, params: GenerationParams) -> tuple[str, str]:
    """The media type of the answer, and the format of its picture files.

    Raises:
        NotAcceptableError: `Accept` allows none of those that this request could have.
    """
    images = list(MEDIA_TYPES) if body.output_format is None else [f"image/{body.output_format}"]
    offers = [*images, _JSON] if params.num_images == 1 else [_JSON]
    answer_type = preferred(",".join(request.headers.getlist("accept")), offers)
    if answer_type is None:
        raise NotAcceptableError(f"the header Accept must allow one of {', '.join(offers)} for this request")
    return answer_type, MEDIA_TYPES.get(answer_type, body.output_format or "png")
