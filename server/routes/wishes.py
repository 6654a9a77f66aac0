"""From a request that asks for pictures to the job that is accepted: JSON only, idempotency key, digest, owner."""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from typing import Any

import structlog
from fastapi import Request
from fastapi.openapi.models import Example

from engine.params import GenerationParams
from server.access.caller import caller_of
from server.errors import IdempotencyKeyError, UnsupportedMediaTypeError
from server.jobs.record import NewJob
from server.routes.dependencies import ServiceOf
from server.schemas import GenerateRequest

__all__ = [
    "EXAMPLES",
    "IDEMPOTENCY_HEADER",
    "idempotency_key",
    "job_of",
    "note",
    "refuse_when_full",
    "require_json",
]

EXAMPLES = {
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

IDEMPOTENCY_HEADER: dict[str, Any] = {
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "description": "A repeat with the same key and body is the same job, and draws nothing again",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
        }
    ]
}

_JSON = "application/json"
_KEY = re.compile(r"[!-~]{1,255}")


async def require_json(request: Request) -> None:
    """Refuse a body that is not declared as JSON. A coroutine, so that FastAPI does not call it in another thread.

    Raises:
        UnsupportedMediaTypeError: it is not.
    """
    # Also what keeps web pages out: a browser sends JSON to a foreign server only after asking it; see CORS_ORIGINS.
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != _JSON or len(request.headers.getlist("content-type")) != 1:
        raise UnsupportedMediaTypeError(f"the header Content-Type must be {_JSON}")


async def refuse_when_full(request: Request, service: ServiceOf) -> None:
    """Refuse what cannot be accepted before its body is looked at. A repeat may be answered all the same.

    Raises:
        QueueFullError: as many jobs wait as may wait.
    """
    if "idempotency-key" not in request.headers:
        service.generator.refuse_when_full()


def idempotency_key(request: Request) -> str | None:
    """The caller's key for this request and its repeats, if there is one.

    Raises:
        IdempotencyKeyError: it cannot be used.
    """
    keys = request.headers.getlist("idempotency-key")
    if not keys:
        return None
    if len(keys) != 1 or not _KEY.fullmatch(keys[0]):
        raise IdempotencyKeyError(
            "the header Idempotency-Key must be there once, with 1 to 255 printable ASCII characters and no spaces"
        )
    return keys[0]


def job_of(
    request: Request,
    wish: GenerateRequest,
    params: GenerationParams,
    *,
    output_format: str,
    is_bound: bool,
) -> NewJob:
    """The job that a request asks for.

    Raises:
        IdempotencyKeyError: its key cannot be used.
    """
    return NewJob(
        id=secrets.token_hex(8),
        key_id=caller_of(request).key_id,
        user=wish.user,
        params=params,
        output_format=output_format,
        is_bound=is_bound,
        idempotency_key=idempotency_key(request),
        request_digest=hashlib.sha256(wish.model_dump_json(exclude_none=True).encode()).digest(),
        created_at=time.time(),
    )


def note(request: Request, job: NewJob, *, with_prompts: bool) -> None:
    """What the request's log line says of the job; its prompts only where the operator wants them there."""
    params = job.params
    request.state.log |= {
        "job_id": job.id,
        "seed": params.seed,
        "steps": params.num_inference_steps,
        "size": f"{params.width}x{params.height}",
        "num_images": params.num_images,
        "sampler": params.sampler,
        "noise_schedule": params.noise_schedule,
        "work_units": round(params.work_units, 4),
    }
    if with_prompts:
        request.state.log |= {"prompt": params.prompt, "negative_prompt": params.negative_prompt}
    structlog.contextvars.bind_contextvars(job_id=job.id)
