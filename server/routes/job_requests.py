"""Makes a new job of a drawing request, and logs it. (Parsing of the request: `upload_route.py`.)"""

from __future__ import annotations

import secrets
import time

import structlog
from fastapi import Request
from fastapi.openapi.models import Example

from engine.params import GenerationParams
from server.access.caller import caller_of
from server.routes.idempotency import idempotency_key, request_digest
from server.schemas.generation import ForeignRequest, GenerateRequest
from server.schemas.upscale import UpscaleRequest
from server.store.record import NewJob

__all__ = ["EXAMPLES", "job_of", "note"]

EXAMPLES = {
    "short": Example(summary="Prompt only", value={"prompt": "a cat on a mat, digital art"}),
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


def job_of(
    request: Request,
    body: GenerateRequest | UpscaleRequest,
    params: GenerationParams,
    *,
    output_format: str,
    is_bound: bool,
    api: str = "",
) -> NewJob:
    """The job that a request asks for.

    Raises:
        IdempotencyKeyError: its key cannot be used.
    """
    return NewJob(
        id=secrets.token_hex(8),
        key_id=caller_of(request).key_id,
        user=body.user,
        params=params,
        output_format=output_format,
        image_metadata=body.image_metadata or "full",
        output_quality=body.output_quality if isinstance(body, ForeignRequest) else None,
        engine_class=body.engine_class if isinstance(body, GenerateRequest) else None,
        is_bound=is_bound,
        idempotency_key=idempotency_key(request),
        request_digest=request_digest(body, api),
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
