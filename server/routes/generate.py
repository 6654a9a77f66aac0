"""`POST /generate`: a prompt in, a picture out, while the caller waits."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

from fastapi import APIRouter, Body, Depends, Request, Response
from fastapi.responses import JSONResponse

from engine.params import GenerationParams
from server.access.scopes import needs
from server.errors import ClientGoneError, NotAcceptableError
from server.generator import JobState
from server.job_schemas import JobView
from server.jobs.record import JobRecord
from server.problems import PROBLEM_MEDIA_TYPE
from server.routes.accept import preferred, preferred_wait_s
from server.routes.dependencies import ServiceOf
from server.routes.jobs import accepted
from server.routes.wishes import (
    EXAMPLES,
    IDEMPOTENCY_HEADER,
    idempotency_key,
    job_of,
    note,
    refuse_when_full,
    require_json,
)
from server.schemas import MEDIA_TYPES, GenerateRequest, GenerateResponse

__all__ = ["router"]

_JSON = "application/json"

_T = TypeVar("_T")

_PICTURE_HEADERS: dict[str, dict[str, object]] = {
    "X-Job-Id": {"description": "Under which it is kept: `/v1/jobs/{id}`", "schema": {"type": "string"}},
    "X-Seed": {"description": "Draws the same picture again", "schema": {"type": "integer"}},
    "X-Model-Id": {"description": "The model, percent-encoded", "schema": {"type": "string"}},
    "X-Sampler": {"schema": {"type": "string"}},
    "X-Noise-Schedule": {"schema": {"type": "string"}},
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

_PROBLEM = {"schema": {"$ref": "#/components/schemas/Problem"}}

_PROBLEMS = {
    400: "The body is not JSON, or cannot be read",
    409: "The job was cancelled",
    406: "`Accept` leaves nothing that could be sent",
    413: "The body is too large",
    415: "The body is not declared as JSON",
    422: "A value breaks a rule; `errors` names field, rule and value",
    503: "The queue is full, the model cannot be served, the engine was lost, or the server is shutting down",
    504: "Not finished within `REQUEST_TIMEOUT`, waiting included",
}

_RESPONSES: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "With an `Idempotency-Key`: not finished in time; ask again, or follow `Location`",
        "model": JobView,
        "headers": {"Location": {"schema": {"type": "string"}}},
    },
    200: {
        "description": "One picture: its file. Several, or if `Accept` prefers JSON: JSON.",
        "headers": _PICTURE_HEADERS,
        "content": {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in MEDIA_TYPES},
    },
    **{
        status: {"description": description, "content": {PROBLEM_MEDIA_TYPE: _PROBLEM}}
        for status, description in _PROBLEMS.items()
    },
}


router = APIRouter(tags=["pictures"])


@router.post(
    "/generate",
    summary="Draw pictures from a prompt",
    response_model=GenerateResponse,
    responses=_RESPONSES,
    dependencies=[needs("generate"), Depends(require_json), Depends(refuse_when_full)],
    openapi_extra=IDEMPOTENCY_HEADER,
)
async def generate(
    request: Request,
    wish: Annotated[GenerateRequest, Body(openapi_examples=EXAMPLES)],
    service: ServiceOf,
) -> Response:
    """Draw, and answer with the picture.

    Without `Idempotency-Key`, hanging up cancels the drawing before its next step. With one, the job goes on, a repeat
    finds it, and one that takes longer than `REQUEST_TIMEOUT` or `Prefer: wait=N` is answered with 202 and `Location`.
    With the same seed, settings and server the same request gives the same bytes, whatever else is being drawn.
    """
    params = wish.to_params(service.defaults)
    answer_type, output_format = _negotiated(request, wish, params)
    is_bound = idempotency_key(request) is None
    new = job_of(request, wish, params, output_format=output_format, is_bound=is_bound)
    note(request, new, with_prompts=service.settings.log_prompts)
    wait_s = None if is_bound else preferred_wait_s(request.headers.getlist("prefer"))
    drawn = await _until_hang_up(request, service.generator.draw(new, wait_s=wait_s))
    if isinstance(drawn, JobState):
        request.state.log["job_id"] = drawn.record.id
        return accepted(drawn, service, is_repeat=False)
    record, images = drawn
    request.state.log["job_id"] = record.id
    if answer_type not in {_JSON, images[0].media_type}:
        raise NotAcceptableError(f"the job was drawn as {images[0].media_type} when its Idempotency-Key was first used")
    params = record.new.params  # a repeat has the seed that was drawn the first time
    is_truncated = record.outcome is not None and record.outcome.truncated_tokens > 0
    timing = _server_timing(record)
    request.state.log["server_timing"] = timing
    headers = {
        "X-Job-Id": record.id,
        "X-Seed": str(params.seed),
        "X-Model-Id": quote(service.settings.model_id, safe="/:@+ "),
        "X-Sampler": params.sampler,
        "X-Noise-Schedule": params.noise_schedule,
        "X-Prompt-Truncated": "true" if is_truncated else "false",
        "Server-Timing": ", ".join(f"{phase};dur={milliseconds}" for phase, milliseconds in timing.items()),
    }
    if answer_type == _JSON:
        answer = GenerateResponse.of(images, params, service.settings.model_id, is_truncated=is_truncated)
        return JSONResponse(answer.model_dump(), headers=headers)
    return Response(images[0].data, media_type=images[0].media_type, headers=headers)


def _negotiated(request: Request, wish: GenerateRequest, params: GenerationParams) -> tuple[str, str]:
    """The media type of the answer, and the format of its picture files.

    Raises:
        NotAcceptableError: `Accept` allows none of those that this request could have.
    """
    images = list(MEDIA_TYPES) if wish.output_format is None else [f"image/{wish.output_format}"]
    offers = [*images, _JSON] if params.num_images == 1 else [_JSON]
    answer_type = preferred(",".join(request.headers.getlist("accept")), offers)
    if answer_type is None:
        raise NotAcceptableError(f"the header Accept must allow one of {', '.join(offers)} for this request")
    return answer_type, MEDIA_TYPES.get(answer_type, wish.output_format or "png")


def _server_timing(record: JobRecord) -> dict[str, float]:
    timings = record.outcome.timings if record.outcome else None
    if timings is None:
        return {}
    seconds = {
        "queue": timings.queue_s,
        "encode": timings.encode_s,
        "denoise": timings.denoise_s,
        "decode": timings.decode_s,
        "png": timings.file_s,
    }
    return {phase: round(1000 * duration, 1) for phase, duration in seconds.items()}


async def _until_hang_up(request: Request, work: Coroutine[Any, Any, _T]) -> _T:
    """Do the work; cancel it if the caller hangs up.

    Raises:
        ClientGoneError: the caller hung up first.
    """
    working = asyncio.create_task(work)
    hanging_up = asyncio.create_task(_hang_up(request))
    try:
        await asyncio.wait({working, hanging_up}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientGoneError("the client hung up; its drawing was cancelled")
    finally:
        working.cancel()
        hanging_up.cancel()
        await asyncio.gather(working, hanging_up, return_exceptions=True)


async def _hang_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
