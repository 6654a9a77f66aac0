"""The service as an ASGI app: `uvicorn server.main:app`, or `create_app()` with other settings.

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
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NoReturn

import structlog
from fastapi import APIRouter, Depends, FastAPI

from engine.errors import EngineError
from engine.models.locate import ModelFolder, locate
from engine.prompts.wildcards import WildcardFolder
from server.access.authentication import Authentication
from server.access.body_limit import BodyLimit
from server.access.client_timeouts import ClientTimeouts
from server.access.cors import CORS, Cors
from server.access.headers import SecurityHeaders
from server.access.key_ring import KeyRing
from server.access.open_host import refuse_open_host
from server.access.proxies import TrustedProxies
from server.access.rate_limit_middleware import RateLimitMiddleware
from server.access.rate_limits import KeyLimits
from server.catalogue import read_catalogue
from server.config import CompatApi, Settings, StartError
from server.dialects.a1111 import A1111
from server.dialects.base import Dialect
from server.dialects.huggingface import HUGGINGFACE
from server.dialects.openai import OPENAI
from server.errors import ServerError
from server.executors.base import Executor
from server.executors.engine_process import EngineProcess
from server.executors.engines import engines_of
from server.executors.pool import EnginePool
from server.generator import ImageGenerator
from server.head_requests import HeadRequests
from server.log_format import configure_logging, log_loop_error
from server.metrics_readings import Readings
from server.openapi import openapi_of
from server.problems import add_problem_handlers
from server.prompt_check import PromptCheck
from server.routes import backup, generate, health, image_info, info, jobs, samplers, upscale
from server.routes import keys as key_routes
from server.routes import metrics as metrics_route
from server.routes import usage as usage_routes
from server.routes.a1111 import draw as a1111_draw
from server.routes.a1111 import extras as a1111_extras
from server.routes.a1111 import lists as a1111_lists
from server.routes.a1111 import options as a1111_options
from server.routes.a1111 import progress as a1111_progress
from server.routes.a1111.sessions import Sessions
from server.routes.dependencies import Service
from server.routes.huggingface import images as huggingface_images
from server.routes.openai import files as openai_files
from server.routes.openai import images as openai_images
from server.routes.openai import models as openai_models
from server.routes.openai.signed_urls import SignedUrls
from server.routes.strict_requests import refuse_unknown_query
from server.routes.upload_route import paths_with_uploads
from server.schemas.generation import Defaults
from server.settings_file import load_settings, unknown_names
from server.store.database import database_opened
from server.store.errors import StoreError
from server.store.input_files import INPUTS_FOLDER
from server.store.storage import Retention, Storage
from server.telemetry import RequestLog
from server.thumbnails import Thumbnails
from server.uploads.uploads import Uploads

__all__ = ["STARTUP_FAILURE", "app_from_environment", "create_app"]

STARTUP_FAILURE = 3
"""Exit code; the one after which uvicorn does not start a failed worker again."""

_COMPAT_ROUTERS: Final[Mapping[CompatApi, Sequence[APIRouter]]] = MappingProxyType(
    {
        "openai": (openai_images.router, openai_images.forms, openai_files.router, openai_models.router),
        "a1111": (
            *(a1111_draw.router, a1111_extras.router, a1111_extras.infos, a1111_progress.router),
            *(a1111_options.router, a1111_lists.router, a1111_lists.acts),
        ),
        "huggingface": (huggingface_images.router,),
    }
)
_DIALECTS: Final[Mapping[CompatApi, Dialect]] = MappingProxyType(
    {"openai": OPENAI, "a1111": A1111, "huggingface": HUGGINGFACE}
)

_log = structlog.get_logger("server")


def create_app(
    settings: Settings | None = None,
    *,
    executor: Executor | EnginePool | None = None,
    begun: EngineProcess | None = None,
    model: ModelFolder | None = None,
    timeouts: ClientTimeouts | None = None,
    open_storage: Callable[[Path], Awaitable[Storage]] = Storage.open,
) -> FastAPI:
    """Make the app. Nothing is started before its lifespan begins.

    Args:
        settings: None reads them from the environment and `.env`.
        executor: where jobs are drawn; None are the engines of the settings.
        begun: the first engine's process, where it has been started already.
        model: whose native size is the default; None is the model of the settings.
        timeouts: for bodies that come slowly; heads and connections are the listener's (`access/connections.py`).
        open_storage: opens the folder of jobs and pictures.

    Raises:
        StartError: it cannot start like this; one line.
    """
    settings = settings or load_settings()
    try:
        model = model or locate(settings.model_id)
    except EngineError as error:
        raise StartError(f"MODEL_ID: {error}") from None
    defaults = Defaults(
        num_inference_steps=settings.default_steps,
        guidance_scale=settings.default_guidance_scale,
        height=settings.default_height or model.native_height,
        width=settings.default_width or model.native_width,
        pixels_per_latent=model.pixels_per_latent,
        sampler=settings.sampler,
        noise_schedule=settings.noise_schedule,
        prefer_karras=settings.use_karras_sigmas,
        wildcards=WildcardFolder(settings.wildcards_folder),
    )
    _check_default_size(settings, model)
    limits = KeyLimits(
        requests_per_minute=settings.limit_requests_per_minute,
        work_units_per_hour=settings.limit_work_units_per_hour,
        jobs=settings.limit_jobs,
    )
    catalogue = read_catalogue(settings, model, defaults)
    generator = ImageGenerator(
        executor or engines_of(settings, begun),
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
        check=PromptCheck(
            ((served.defaults.model, served.folder) for served in catalogue.models), catalogue.inversions
        ).check,
        open_storage=open_storage,
    )
    app = FastAPI(
        title=info.NAME,
        version=info.VERSION,
        summary="Text to image with Stable Diffusion, on your own GPU.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
        dependencies=[Depends(refuse_unknown_query)],
        telemetry={"auto_configure": False, "tracing": False, "metrics": False, "logs": False},
    )
    keys = KeyRing(settings.api_key.get_secret_value() if settings.api_key else None)
    app.state.service = Service(
        settings=settings,
        generator=generator,
        defaults=defaults,
        catalogue=catalogue,
        keys=keys,
        started_at=time.monotonic(),
        readings=Readings(generator, model_id=settings.model_id, version=info.VERSION),
        thumbnails=Thumbnails(),
        uploads=Uploads(settings.server_folder / INPUTS_FOLDER),
        signed_urls=SignedUrls(settings.server_folder),
        a1111=Sessions(),
    )
    routers = [
        routes.router
        for routes in (
            info,
            health,
            samplers,
            generate,
            jobs,
            upscale,
            image_info,
            usage_routes,
            key_routes,
            backup,
            metrics_route,
        )
    ]
    routers += [router for api in settings.compat_apis for router in _COMPAT_ROUTERS[api]]
    if "openai" not in settings.compat_apis:  # the list is ours, too
        routers.append(openai_models.router)
    app.state.dialects = tuple(_DIALECTS[api] for api in settings.compat_apis)
    upload_paths = paths_with_uploads(route for router in routers for route in router.routes)
    # The last one added is the outermost.
    app.add_middleware(HeadRequests)
    # A quarter: with what it may have at most, no key closes the server to the others.
    app.add_middleware(RateLimitMiddleware, limits=limits, max_in_hand=max(1, settings.max_connections // 4))
    app.add_middleware(Authentication, keys=keys)
    app.add_middleware(BodyLimit, timeouts=timeouts, upload_paths=upload_paths)
    app.add_middleware(RequestLog, metrics=generator.metrics)
    if settings.cors_origins:
        app.add_middleware(Cors, allow_origins=settings.cors_origins, **CORS)
    app.add_middleware(SecurityHeaders, hsts_s=settings.hsts_seconds)
    if settings.trusted_proxies:
        app.add_middleware(TrustedProxies, networks=settings.trusted_proxies)
    add_problem_handlers(app)
    for router in routers:
        app.include_router(router)
    app.mount("/static", info.OwnFiles(directory=info.STATIC_FOLDER))
    app.openapi = functools.partial(openapi_of, app)  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    return app


def _check_default_size(settings: Settings, model: ModelFolder) -> None:
    """Check the sizes of the settings against the model, which they come without.

    Raises:
        StartError: the model cannot draw such a size.
    """
    for name, pixels in (("DEFAULT_HEIGHT", settings.default_height), ("DEFAULT_WIDTH", settings.default_width)):
        if pixels is not None and pixels % model.pixels_per_latent:
            rule = f"must be a multiple of {model.pixels_per_latent} with {model.model_id}"
            raise StartError(f"{name} {rule}, not {pixels}")


def app_from_environment(begun: EngineProcess | None = None) -> FastAPI:
    """Make the app of this process, with its logging, from the environment and `.env`.

    Args:
        begun: the engine process, where it has been started already.

    Raises:
        StartError: it cannot start like this; one line.
    """
    _refuse_workers()
    settings = load_settings()
    configure_logging(
        settings.log_level,
        settings.log_format,
        shows_prompts=settings.log_prompts,
        safe_errors=(ServerError, StoreError),
    )
    for name, setting in unknown_names().items():
        _log.warning("unknown setting in .env, ignored", name=name, did_you_mean=setting)
    refuse_open_host(settings)
    app = create_app(settings, begun=begun)
    _refuse_unusable_store(settings)
    return app


def _print_and_exit(error: StartError) -> NoReturn:
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
        _print_and_exit(error)


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    asyncio.get_running_loop().set_exception_handler(log_loop_error)
    await service.generator.start()
    await asyncio.to_thread(service.signed_urls.open)
    try:
        await service.keys.open(service.generator.storage.store)
        yield
    finally:
        await service.keys.close()
        service.thumbnails.close()
        service.uploads.close()
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
    """Look at the job store before anything is started, while a fault in it can still be reported in one line.

    Raises:
        StartError: another server has it, it is damaged, or it cannot be written.
    """
    try:
        with database_opened(settings.server_folder, is_checked=False):
            pass
    except StoreError as error:
        raise StartError(f"DATA_DIR: {error}") from None
