"""Health checks: liveness `GET /livez`, readiness `GET /readyz`, details `GET /health`. None waits for the engine."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from server.error_wording import without_folders
from server.routes.dependencies import Service, ServiceOf
from server.schemas.generation import GenerateRequest

__all__ = ["router", "status_of"]


_PHASES = {
    "import": "importing torch",
    "import_model": "importing the networks",
    "convert": "converting the model, once",
    "load": "reading the model's files",
    "measure": "measuring how many rows a call takes best",
    "warm_up": "drawing a first small picture",
}
"""Phase of the engine's start (see `LoadProgress`) -> what it does."""

Status = Literal["loading", "healthy", "degraded", "failed", "draining"]


class DefaultsInfo(BaseModel):
    """Values for fields that a request leaves out."""

    steps: int = Field(validation_alias="num_inference_steps")
    guidance_scale: float
    height: int
    width: int


class GeneratorInfo(BaseModel):
    """Model and device. Device and dtype are the configured ones until the model is loaded, then the actual ones."""

    model_config = ConfigDict(protected_namespaces=())

    model_id: str
    device: str
    dtype: str
    scheduler: str
    noise_schedule: str
    model_loaded: bool
    defaults: DefaultsInfo


class EngineReport(BaseModel):
    """The engine process, as it last reported."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    state: str
    device_name: str | None
    backend: str | None
    """What runs the networks: `torch` or `openvino`."""
    num_threads: int | None
    """CPU threads that compute one call; null on a GPU."""
    warning: str | None
    """What is not as it should be though it draws: a model that could not be converted."""
    rows_per_call: int | None
    max_images_in_flight: int | None
    silence_s: float
    """Seconds since its last message."""
    load_seconds: dict[str, float]
    """Seconds per phase of its start."""
    restarts: int
    """Restarts of the engine since the server started."""


class PooledEngine(BaseModel):
    """One of the engines."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    state: str
    """`loading` also while it cannot be reached."""
    device_name: str | None
    backend: str | None
    is_remote: bool
    is_paused: bool
    """Left out for a while, because it was lost with different jobs in a row."""
    engine_class: str | None
    """The same request gives the same bytes on every engine of a class; null while it is not known."""
    images_in_flight: int
    max_images_in_flight: int | None


class QueueReport(BaseModel):
    """Waiting requests and running pictures."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    requests_waiting: int
    max_requests_waiting: int
    images_in_flight: int
    eta_s: float | None
    """Seconds until a default job submitted now would be done; null while unknown."""


class Health(BaseModel):
    """Status, model, engine and queue."""

    model_config = ConfigDict(protected_namespaces=(), use_attribute_docstrings=True)

    status: Status
    reason: str | None
    """Why it is not `healthy`."""
    model_loaded: bool
    generator_info: GeneratorInfo
    engine: EngineReport
    """The only engine, or the first one that is ready."""
    engines: list[PooledEngine]
    """Every engine. Their addresses are in the log and in `/metrics`."""
    queue: QueueReport
    uptime_s: float


class Readiness(BaseModel):
    """Whether the server is ready to draw."""

    ready: bool
    reason: str | None


class Liveness(BaseModel):
    """The process responds."""

    alive: Literal[True] = True


router = APIRouter(tags=["health"])


@router.get("/livez", summary="Liveness")
async def livez() -> Liveness:
    """Always 200: restart the process if this does not answer."""
    return Liveness()


@router.get("/readyz", summary="Readiness", responses={503: {"model": Readiness}})
async def readyz(service: ServiceOf, response: Response) -> Readiness:
    """200, or 503 with the reason: loading, failed, draining, or an engine that does not respond."""
    status, reason = await status_of(service)
    if status != "healthy":
        response.status_code = 503
    return Readiness(ready=status == "healthy", reason=reason)


@router.get("/health", summary="Health and details", responses={503: {"model": Health}})
async def health(service: ServiceOf, response: Response) -> Health:
    """200 while `loading`, `healthy` or `degraded`; 503 when `failed` or `draining`."""
    status, reason = await status_of(service)
    if status in {"failed", "draining"}:
        response.status_code = 503
    settings, generator, defaults = service.settings, service.generator, service.defaults
    executor = generator.executor
    info = executor.info
    model_loaded = executor.state == "ready"
    return Health(
        status=status,
        reason=reason,
        model_loaded=model_loaded,
        generator_info=GeneratorInfo(
            model_id=settings.model_name,
            device=info.device if info else settings.device,
            dtype=info.dtype if info else settings.torch_dtype,
            scheduler=defaults.sampler,
            noise_schedule=defaults.noise_schedule,
            model_loaded=model_loaded,
            defaults=DefaultsInfo(**asdict(defaults)),
        ),
        engine=EngineReport(
            state=executor.state,
            device_name=info.device_name if info else None,
            backend=info.backend if info else None,
            num_threads=info.num_threads if info else None,
            warning=without_folders(info.warning, settings.model_id) if info and info.warning else None,
            rows_per_call=info.rows_per_call if info else None,
            max_images_in_flight=info.max_images_in_flight if info else None,
            silence_s=round(executor.silence_s, 3),
            load_seconds=executor.load_seconds,
            restarts=executor.restarts,
        ),
        engines=[
            PooledEngine(
                state=seat.executor.state,
                device_name=seat.executor.info.device_name if seat.executor.info else None,
                backend=seat.executor.info.backend if seat.executor.info else None,
                is_remote=seat.is_remote,
                is_paused=seat.is_paused,
                engine_class=(seat.executor.info.engine_class or None) if seat.executor.info else None,
                images_in_flight=seat.num_images,
                max_images_in_flight=seat.executor.info.max_images_in_flight if seat.executor.info else None,
            )
            for seat in executor.seats
        ],
        queue=QueueReport(
            requests_waiting=generator.dispatcher.num_waiting,
            max_requests_waiting=settings.max_queued_requests,
            images_in_flight=generator.dispatcher.num_images_in_flight,
            eta_s=generator.estimates.of_new_s(GenerateRequest(prompt="?").to_params(defaults)),
        ),
        uptime_s=round(time.monotonic() - service.started_at, 3),
    )


async def status_of(service: Service) -> tuple[Status, str | None]:
    """The one word, and why it is not `healthy`."""
    executor = service.generator.executor
    if service.generator.is_draining:
        return "draining", "the server is shutting down"
    if executor.state in {"failed", "stopped"}:
        return "failed", without_folders(executor.failure or "the engine has ended", service.settings.model_id)
    if executor.state == "loading":
        trouble, doing = executor.load_trouble, _PHASES.get(executor.load_phase or "")
        again, now = f" again: {trouble}" if trouble else "", f"; now: {doing}" if doing else ""
        return "loading", f"the model is being loaded{again}{now}"
    silent = [seat.executor for seat in executor.seats if seat.is_silent]
    if silent:
        which = "the engine has" if len(executor.seats) == 1 else f"{len(silent)} of {len(executor.seats)} engines have"
        return "degraded", f"{which} not responded for {max(engine.silence_s for engine in silent):.0f} s"
    trouble = await service.generator.storage.trouble()
    if trouble is not None:
        return "degraded", f"storage unavailable: {trouble}"
    return "healthy", None
