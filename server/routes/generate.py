"""`POST /generate`: a prompt in, a picture out, while the caller waits."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

from fastapi import APIRouter, Body, Depends, Request, Response
from fastapi.openapi.models import Example
from fastapi.responses import JSONResponse

from engine.params import GenerationParams
from server.errors import (
    ClientGoneError,
    IdempotencyUnsupportedError,
    NotAcceptableError,
    UnsupportedMediaTypeError,
)
from server.jobs.life import Drawing
from server.problems import PROBLEM_MEDIA_TYPE
from server.routes.accept import preferred
from server.routes.dependencies import ServiceOf
from server.schemas import MEDIA_TYPES, GenerateRequest, GenerateResponse

__all__ = ["router"]

_JSON = "application/json"

_T = TypeVar("_T")

_EXAMPLES = {
    "short": Example(summary="Only a prompt", value={"prompt": "a cat on a mat, digital art"}),
    "full": Example(
        summary="The specification's request",
        value={
            "prompt": "a cat sitting on a mat, digital art style, detailed",
            "negative_prompt": "blurry, low quality, distorted",
            "num_inference_steps": 28,
            "guidance_scale": 7.0,
            "height": 512,
            "width": 512,
            "seed": 42,
        },
    ),
    "several": Example(
        summary="Three pictures, as JSON",
        value={"prompt": "a lighthouse at night", "num_images": 3, "seed": 7, "sampler": "Euler a"},
    ),
}

_PICTURE_HEADERS: dict[str, dict[str, object]] = {
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
    401: "The request does not come from this machine",
    406: "`Accept` leaves nothing that could be sent",
    413: "The body is too large",
    415: "The body is not declared as JSON",
    422: "A value breaks a rule; `errors` names field, rule and value",
    503: "The queue is full, the model cannot be served, the engine was lost, or the server is shutting down",
    504: "Not finished within `REQUEST_TIMEOUT`, waiting included",
}

_RESPONSES: dict[int | str, dict[str, Any]] = {
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


def _require_json(request: Request) -> None:
    # Also what keeps web pages out: a browser sends JSON to a foreign server only after asking it, and we never agree.
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != _JSON or len(request.headers.getlist("content-type")) != 1:
        raise UnsupportedMediaTypeError(f"the header Content-Type must be {_JSON}")


def _refuse_idempotency_key(request: Request) -> None:
    if "idempotency-key" in request.headers:
        raise IdempotencyUnsupportedError(
            "this version cannot promise that a retry never draws twice; leave the header Idempotency-Key out"
        )


router = APIRouter(tags=["pictures"])


@router.post(
    "/generate",
    summary="Draw pictures from a prompt",
    response_model=GenerateResponse,
    responses=_RESPONSES,
    dependencies=[Depends(_require_json), Depends(_refuse_idempotency_key)],
)
async def generate(
    request: Request,
    wish: Annotated[GenerateRequest, Body(openapi_examples=_EXAMPLES)],
    service: ServiceOf,
) -> Response:
    """Draw, and answer with the picture. Hanging up cancels the drawing before its next step.

    With the same seed, settings and server the same request gives the same bytes, whatever else is being drawn.
    """
    params = wish.to_params(service.defaults)
    answer_type, output_format = _negotiated(request, wish, params)
    _note(request, params)
    drawing = await _until_hang_up(request, service.generator.generate(params, output_format))
    timing = _server_timing(drawing)
    request.state.log["server_timing"] = timing
    headers = {
        "X-Seed": str(params.seed),
        "X-Model-Id": quote(service.settings.model_id, safe="/:@+ "),
        "X-Sampler": params.sampler,
        "X-Noise-Schedule": params.noise_schedule,
        "X-Prompt-Truncated": "true" if drawing.truncated_tokens else "false",
        "Server-Timing": ", ".join(f"{phase};dur={milliseconds}" for phase, milliseconds in timing.items()),
    }
    if answer_type == _JSON:
        answer = GenerateResponse.of(drawing, params, service.settings.model_id)
        return JSONResponse(answer.model_dump(), headers=headers)
    image = drawing.images[0]
    return Response(image.data, media_type=image.media_type, headers=headers)


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


def _note(request: Request, params: GenerationParams) -> None:
    request.state.log |= {
        "seed": params.seed,
        "steps": params.num_inference_steps,
        "size": f"{params.width}x{params.height}",
        "num_images": params.num_images,
        "sampler": params.sampler,
        "noise_schedule": params.noise_schedule,
        "work_units": round(params.work_units, 4),
    }


def _server_timing(drawing: Drawing) -> dict[str, float]:
    seconds = {
        "queue": drawing.queue_s,
        "encode": drawing.encode_s,
        "denoise": drawing.denoise_s,
        "decode": drawing.decode_s,
        "png": drawing.file_s,
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
