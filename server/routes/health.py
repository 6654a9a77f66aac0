"""Is it alive, is it ready, how is it: `GET /livez`, `GET /readyz`, `GET /health`. None of them asks the engine."""

from __future__ import annotations

import time
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict

from server.routes.dependencies import Service, ServiceOf
from server.schemas import GenerateRequest

__all__ = ["router", "status_of"]


Status = Literal["loading", "healthy", "degraded", "failed", "draining"]


class DefaultsInfo(BaseModel):
    """What a request gets that does not say."""

    steps: int
    guidance_scale: float
    height: int
    width: int


class GeneratorInfo(BaseModel):
    """What draws. Device and dtype are as configured until the model is loaded, then as they turned out."""

    model_config = ConfigDict(protected_namespaces=())

    model_id: str
    device: str
    dtype: str
    scheduler: str
    noise_schedule: str
    model_loaded: bool
    defaults: DefaultsInfo


class EngineReport(BaseModel):
    """The engine process, as far as it has told."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    state: str
    device_name: str | None
    rows_per_call: int | None
    max_images_in_flight: int | None
    silence_s: float
    """Seconds since its last sign of life."""
    load_seconds: dict[str, float]
    """Seconds that each phase of its start took."""
    restarts: int
    """Times that it was replaced since the server started."""


class QueueReport(BaseModel):
    """Who waits and what is being drawn."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    requests_waiting: int
    max_requests_waiting: int
    images_in_flight: int
    eta_s: float | None
    """Seconds until a default job asked for now would be done; null while unknown."""


class Health(BaseModel):
    """The specification's answer, and more."""

    model_config = ConfigDict(protected_namespaces=(), use_attribute_docstrings=True)

    status: Status
    reason: str | None
    """Why it is not `healthy`."""
    model_loaded: bool
    generator_info: GeneratorInfo
    engine: EngineReport
    queue: QueueReport
    uptime_s: float


class Readiness(BaseModel):
    """Whether a request sent now would be drawn soon."""

    ready: bool
    reason: str | None


class Liveness(BaseModel):
    """The event loop turns."""

    alive: Literal[True] = True


router = APIRouter(tags=["health"])


@router.get("/livez", summary="Does the process answer?")
async def livez() -> Liveness:
    """Always 200: restart the process if this does not answer."""
    return Liveness()


@router.get("/readyz", summary="Would a request be drawn soon?", responses={503: {"model": Readiness}})
async def readyz(service: ServiceOf, response: Response) -> Readiness:
    """200, or 503 with the reason: loading, failed, draining, or an engine that gives no sign of life."""
    status, reason = await status_of(service)
    if status != "healthy":
        response.status_code = 503
    return Readiness(ready=status == "healthy", reason=reason)


@router.get("/health", summary="How is it?", responses={503: {"model": Health}})
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
            model_id=settings.model_id,
            device=info.device if info else settings.device,
            dtype=info.dtype if info else settings.torch_dtype,
            scheduler=defaults.sampler,
            noise_schedule=defaults.noise_schedule,
            model_loaded=model_loaded,
            defaults=DefaultsInfo(
                steps=defaults.num_inference_steps,
                guidance_scale=defaults.guidance_scale,
                height=defaults.height,
                width=defaults.width,
            ),
        ),
        engine=EngineReport(
            state=executor.state,
            device_name=info.device_name if info else None,
            rows_per_call=info.rows_per_call if info else None,
            max_images_in_flight=info.max_images_in_flight if info else None,
            silence_s=round(executor.silence_s, 3),
            load_seconds=executor.load_seconds,
            restarts=executor.restarts,
        ),
        queue=QueueReport(
            requests_waiting=generator.num_waiting,
            max_requests_waiting=settings.max_queued_requests,
            images_in_flight=generator.num_images_in_flight,
            eta_s=generator.eta_of_new_s(GenerateRequest(prompt="?").to_params(defaults)),
        ),
        uptime_s=round(time.monotonic() - service.started_at, 3),
    )


async def status_of(service: Service) -> tuple[Status, str | None]:
    """The one word, and why it is not `healthy`."""
    executor = service.generator.executor
    if service.generator.is_draining:
        return "draining", "the server is shutting down"
    if executor.state in {"failed", "stopped"}:
        return "failed", executor.failure or "the engine has ended"
    if executor.state == "loading":
        return "loading", "the model is being loaded"
    if executor.silence_s > executor.allowed_silence_s:
        return "degraded", f"the engine has given no sign of life for {executor.silence_s:.0f} s"
    trouble = await service.generator.trouble()
    if trouble is not None:
        return "degraded", f"nothing can be written down: {trouble}"
    return "healthy", None
