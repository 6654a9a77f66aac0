"""A job for a request that came over the API of another program: admitted, queued, charged and kept as any other."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import Request

from server.config import CompatApi
from server.errors import RequestTimeoutError
from server.routes.dependencies import Service
from server.routes.hang_up import until_hang_up
from server.routes.idempotency import idempotency_key
from server.routes.job_requests import job_of, note
from server.schemas.generation import ForeignRequest
from server.schemas.upscale import UpscaleRequest
from server.store.input_files import UploadedPicture
from server.store.record import JobRecord, NewJob, Picture

__all__ = ["draw", "foreign_job", "still_drawing"]


def foreign_job(
    request: Request, service: Service, wish: ForeignRequest | UpscaleRequest, *, api: CompatApi, output_format: str
) -> NewJob:
    """The job that a request asks for.

    Raises:
        InvalidParamsError: a value, or a combination of values, that cannot be.
        IdempotencyKeyError: its key cannot be used.
    """
    is_bound = idempotency_key(request) is None
    name = wish.model if isinstance(wish, ForeignRequest) else None
    params = wish.to_params(service.catalogue.defaults_of(name))
    new = job_of(request, wish, params, output_format=output_format, is_bound=is_bound, api=api)
    note(request, new, with_prompts=service.settings.log_prompts)
    return new


async def draw(
    request: Request, service: Service, new: NewJob, pictures: Sequence[UploadedPicture]
) -> tuple[JobRecord, tuple[Picture, ...]]:
    """Draw, for as long as `COMPAT_TIMEOUT` allows; a hang-up cancels as at `/generate`.

    Raises:
        RequestTimeoutError: not finished in time.
        ServerError: see `ImageGenerator.draw`.
        EngineError: the engine could not draw this.
    """
    timeout_s = service.settings.compat_timeout
    drawing = service.generator.draw(new, pictures, timeout_s=timeout_s)
    what_becomes = "its job was cancelled" if new.is_bound else "its job goes on because it has an Idempotency-Key"
    record, images = await until_hang_up(request, drawing, what_becomes)
    if images is None:
        raise still_drawing(record, timeout_s)
    return record, images


def still_drawing(record: JobRecord, timeout_s: float) -> RequestTimeoutError:
    """What a caller is told whose job goes on."""
    return RequestTimeoutError(
        f"not finished within {timeout_s:g} s (queueing included); job {record.id} goes on because it has an "
        "Idempotency-Key: repeat the request"
    )
