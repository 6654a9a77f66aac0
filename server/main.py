"""The service as an ASGI app: `uvicorn server.main:app`, or `create_app()` for those who bring their own settings.

Importing this module does nothing. Asking it for `app` reads the settings, once, and makes the app; the model begins to
load when the app's lifespan begins.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import multiprocessing
import sys
import time
from collections.abc import AsyncIterator
from typing import Any, NoReturn

import structlog
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from engine.errors import EngineError
from engine.models.locate import locate
from server.access.authentication import Authentication
from server.access.body_limit import BodyLimit
from server.access.headers import CORS, SecurityHeaders
from server.access.key_ring import KeyRing
from server.access.limits import FailedAttempts, KeyLimits
from server.access.open_host import refuse_open_host
from server.access.proxies import TrustedProxies
from server.access.request_limits import RequestLimits
from server.access.timeouts import Patience
from server.config import Settings, StartError, load_settings, misspelt_names
from server.executors.base import Executor
from server.executors.child_process import ChildProcessExecutor
from server.executors.messages import Configure
from server.generator import ImageGenerator
from server.head_requests import HeadRequests
from server.jobs.database import database_opened
from server.jobs.keeping import Retention
from server.jobs.store_errors import StoreError
from server.metrics_readings import Readings
from server.openapi import openapi_of
from server.problems import add_problem_handlers
from server.routes import backup, generate, health, info, jobs, samplers
from server.routes import keys as key_routes
from server.routes import metrics as metrics_route
from server.routes import usage as usage_routes
from server.routes.dependencies import Service
from server.schemas import Defaults
from server.telemetry import RequestLog
from server.telemetry_logs import configure_logging, log_loop_error

__all__ = ["STARTUP_FAILURE", "app_from_environment", "create_app"]

STARTUP_FAILURE = 3
"""Exit code; the one after which uvicorn does not start a failed worker again."""

_log = structlog.get_logger("server")


def create_app(
    settings: Settings | None = None, *, executor: Executor | None = None, patience: Patience | None = None
) -> FastAPI:
    """Make the app. Nothing is started before its lifespan begins.

    Args:
        settings: None reads them from the environment and `.env`.
        executor: where jobs are drawn; None is a child process with the model of the settings.
        patience: with bodies that are slow to come; heads and connections are the listener's (`listening.py`).

    Raises:
        StartError: it cannot start like this; one line.
    """
    settings = settings or load_settings()
    try:
        model = locate(settings.model_id)
    except EngineError as error:
        raise StartError(f"MODEL_ID: {error}") from None
    defaults = Defaults(
        num_inference_steps=settings.default_steps,
        guidance_scale=settings.default_guidance_scale,
        height=settings.default_height or model.native_height,
        width=settings.default_width or model.native_width,
        sampler=settings.sampler,
        noise_schedule=settings.noise_schedule,
        prefer_karras=settings.use_karras_sigmas,
    )
    limits = KeyLimits(
        requests_per_minute=settings.limit_requests_per_minute,
        work_units_per_hour=settings.limit_work_units_per_hour,
        jobs=settings.limit_jobs,
    )
    generator = ImageGenerator(
        executor or ChildProcessExecutor(_configure(settings), watchdog_s=settings.watchdog_min),
        settings.server_folder,
        max_queued_requests=settings.max_queued_requests,
        request_timeout_s=settings.request_timeout,
        retention=Retention(
            results_s=settings.keep_results_hours * 3600,
            results_bytes=settings.keep_results_mib * 2**20,
            jobs_s=settings.keep_jobs_days * 86400,
        ),
        limits=limits,
        price_per_work_unit=settings.price_per_work_unit,
    )
    app = FastAPI(
        title=info.NAME,
        version=info.VERSION,
        summary="Prompts in, pictures out, on your own GPU.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
        telemetry={"auto_configure": False, "tracing": False, "metrics": False, "logs": False},
    )
    keys = KeyRing(settings.api_key.get_secret_value() if settings.api_key else None)
    app.state.service = Service(
        settings=settings,
        generator=generator,
        defaults=defaults,
        keys=keys,
        started_at=time.monotonic(),
        readings=Readings(generator, folder=settings.server_folder, model_id=settings.model_id, version=info.VERSION),
    )
    # The last one added is the outermost.
    app.add_middleware(HeadRequests)
    failed_attempts = FailedAttempts(settings.limit_failed_authentications_per_minute)
    # A quarter: with what it may have at most, no key closes the server to the others.
    app.add_middleware(RequestLimits, limits=limits, max_in_hand=max(1, settings.max_connections // 4))
    app.add_middleware(Authentication, keys=keys, failed_attempts=failed_attempts)
    app.add_middleware(BodyLimit, patience=patience)
    app.add_middleware(RequestLog, metrics=generator.metrics)
    if settings.cors_origins:
        app.add_middleware(CORSMiddleware, allow_origins=settings.cors_origins, **CORS)
    app.add_middleware(SecurityHeaders, hsts_s=settings.hsts_seconds)
    if settings.trusted_proxies:
        app.add_middleware(TrustedProxies, networks=settings.trusted_proxies)
    add_problem_handlers(app)
    for routes in (info, health, samplers, generate, jobs, usage_routes, key_routes, backup, metrics_route):
        app.include_router(routes.router)
    app.mount("/static", info.OwnFiles(directory=info.STATIC_FOLDER))
    app.openapi = functools.partial(openapi_of, app)  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    return app


def app_from_environment() -> FastAPI:
    """Make the app of this process, with its logging, from the environment and `.env`.

    Raises:
        StartError: it cannot start like this; one line.
    """
    _refuse_workers()
    settings = load_settings()
    configure_logging(settings.log_level, settings.log_format, shows_prompts=settings.log_prompts)
    for name, setting in misspelt_names().items():
        _log.warning("a name in .env is no setting", name=name, did_you_mean=setting)
    refuse_open_host(settings)
    app = create_app(settings)
    _refuse_unusable_store(settings)
    return app


def _tell_and_exit(error: StartError) -> NoReturn:
    """End the process with the error's one line."""
    # Every worker finds the same fault at the same time; the first one tells it for all.
    if multiprocessing.parent_process() is None or multiprocessing.current_process().name.endswith("-1"):
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 -- the line is for whoever starts the server
    raise SystemExit(STARTUP_FAILURE)


def __getattr__(name: str) -> FastAPI:
    # Uvicorn asks for `app` by name. Made here and not at import, so that importing reads no environment.
    if name == "app":
        return _app()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@functools.cache
def _app() -> FastAPI:
    try:
        return app_from_environment()
    except StartError as error:
        _tell_and_exit(error)


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    asyncio.get_running_loop().set_exception_handler(log_loop_error)
    await service.generator.start()
    try:
        await service.keys.open(service.generator.store)
        yield
    finally:
        await service.keys.close()
        await service.generator.stop()


def _refuse_workers() -> None:
    """End a server that was started as several processes: each would load its own model and keep its own queue.

    Raises:
        StartError: this is one worker of several.
    """
    # Uvicorn hands each worker its whole configuration as an argument, however the number was set (`--workers`,
    # WEB_CONCURRENCY, UVICORN_WORKERS, `run()`); nothing public says as much. `--reload` starts such a process too, so
    # being a child alone would not do.
    arguments: dict[str, Any] = getattr(multiprocessing.current_process(), "_kwargs", {})
    if getattr(arguments.get("config"), "workers", 1) > 1:
        raise StartError("the server must run as one process: leave --workers (and WEB_CONCURRENCY) out")


def _refuse_unusable_store(settings: Settings) -> None:
    """Look at the job store before anything is started, while what is wrong with it can still be told in one line.

    Raises:
        StartError: another server has it, it is damaged, or it cannot be written.
    """
    try:
        with database_opened(settings.server_folder, is_checked=False):
            pass
    except StoreError as error:
        raise StartError(f"DATA_DIR: {error}") from None


def _configure(settings: Settings) -> Configure:
    return Configure(
        model_id=settings.model_id,
        device=settings.device,
        dtype=settings.torch_dtype,
        rows_per_call=settings.rows_per_call,
        max_images_in_flight=settings.max_concurrent_requests,
        reproducible=settings.reproducible,
        sampler=settings.sampler,
        noise_schedule=settings.noise_schedule,
        num_inference_steps=settings.default_steps,
        log_level=settings.log_level,
        log_format=settings.log_format,
        log_prompts=settings.log_prompts,
    )
