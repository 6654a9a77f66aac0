"""The engine's HTTP service as a Ray Serve deployment: one replica a GPU. `serve run deploy.ray.app:build gpus=1`.

The gateway reaches it by `ENGINE_POOL_URL` (docs/scaling.md). A replica reads the settings of its environment, as
`python -m server engine` does. Ray starts, replaces and counts replicas; the gateway needs nothing of Ray.
"""

# Without `from __future__ import annotations`: Serve looks at the type of `build`'s argument.
import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field
from ray import serve

from engine.errors import ModelLoadError
from server.config import REPOSITORY
from server.engine_service import EngineService
from server.executors.engine_protocol import DRAW
from server.executors.engines import local_engines
from server.executors.pool import EnginePool
from server.settings_file import load_settings

__all__ = ["Engine", "EngineArguments", "build"]

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_READINGS: Final = 2
"""Requests a replica takes beside those that draw: `/engine/v1/info` must be answered while every place is taken."""
_MAX_MODELS: Final = 16
"""That Serve remembers of a replica. Which of them are in memory is the engine's own decision."""


class EngineArguments(BaseModel):
    """What `serve run` may be given: `name=value`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    places: int = Field(default=4, ge=1)
    """Pictures that one engine draws together: its `max_images_in_flight`, or `MAX_CONCURRENT_REQUESTS`."""
    gpus: float = Field(default=1.0, ge=0)
    """GPUs of a replica; 0 on a CPU."""
    cpus: float = Field(default=1.0, ge=0)
    """CPUs that Ray sets aside for a replica."""
    min_replicas: int = Field(default=1, ge=0)
    max_replicas: int = Field(default=1, ge=1)
    """As many GPUs as there may be."""
    upscale_delay_s: float = Field(default=10.0, ge=0)
    """For how long the engines must be busy before one is added."""
    downscale_delay_s: float = Field(default=300.0, ge=0)
    """For how long there must be one too many before it is drained and ended: loading a model takes a while."""
    drain_timeout_s: float = Field(default=60.0, ge=0)
    """What is being drawn at an end or a redeploy gets so long, as by `DRAIN_TIMEOUT`."""


@serve.ingress()
class Engine:
    """One replica. Belongs to the event loop's thread."""

    def __init__(self) -> None:
        settings = load_settings()
        token = settings.engine_token
        self._engines = list((engines := local_engines(settings)).values())
        self._pool = EnginePool(engines)
        self._service = EngineService(self._pool, None if token is None else token.get_secret_value())

    def __serve_build_asgi_app__(self) -> Callable[[_Scope, _Receive, _Send], Awaitable[None]]:
        async def app(scope: _Scope, receive: _Receive, send: _Send) -> None:  # uvicorn takes a method for ASGI 2
            await self._answer(scope, receive, send)

        return app

    async def _answer(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        if scope["type"] == "lifespan":
            await self._service(scope, receive, self._when_ready(send))
            return
        if scope["path"] == DRAW and (model := serve.get_multiplexed_model_id()):
            await self._hold(model)
        await self._service(scope, receive, send)

    def _when_ready(self, send: _Send) -> _Send:
        """Serve sends requests to a replica as soon as its start has ended: when the model is loaded."""

        async def send_when_ready(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "lifespan.startup.complete":
                await self._until_ready()
            await send(message)

        return send_when_ready

    async def _until_ready(self) -> None:
        """Return when one of its devices would draw.

        Raises:
            ModelLoadError: none of them ever will.
        """
        waits = [asyncio.ensure_future(engine.wait_until_ready()) for engine in self._engines]
        try:
            for ended in asyncio.as_completed(waits):
                with contextlib.suppress(ModelLoadError):
                    await ended
                    return
            raise ModelLoadError(self._pool.failure or "there is no engine")
        finally:
            for wait in waits:
                wait.cancel()

    @serve.multiplexed(max_num_models_per_replica=_MAX_MODELS)  # type: ignore[untyped-decorator]  # Ray is not here
    async def _hold(self, model: str) -> str:
        """Tell Serve that jobs for this model had better come here: the engine loads it with the first one."""
        return model

    async def check_health(self) -> None:
        """Called by Serve again and again. The engine process is watched and restarted here; this is for the rest.

        Raises:
            RuntimeError: this replica will not draw again: Serve starts another.
        """
        if self._pool.state in {"failed", "stopped"}:
            raise RuntimeError(self._pool.failure or "the engine has ended")


def build(arguments: EngineArguments) -> serve.Application:
    """The application, for `serve run` and `serveConfigV2`."""
    deployment = serve.deployment(
        Engine,
        name="engine",
        # More wait at the gateway, in its fair order; what comes to a full engine is refused at once.
        max_ongoing_requests=arguments.places + _READINGS,
        max_queued_requests=arguments.places * arguments.max_replicas,
        ray_actor_options={
            "num_cpus": arguments.cpus,
            "num_gpus": arguments.gpus,
            "runtime_env": {"env_vars": {"PYTHONPATH": _python_path()}},
        },
        autoscaling_config={
            "min_replicas": arguments.min_replicas,
            "max_replicas": arguments.max_replicas,
            # Below the places: an engine that is nearly full is the reason for another.
            "target_ongoing_requests": max(1.0, 0.8 * arguments.places),
            "upscale_delay_s": arguments.upscale_delay_s,
            "downscale_delay_s": arguments.downscale_delay_s,
        },
        health_check_period_s=5,
        health_check_timeout_s=10,
        graceful_shutdown_wait_loop_s=0.5,
        graceful_shutdown_timeout_s=arguments.drain_timeout_s,
    )
    return deployment.bind()


def _python_path() -> str:
    return os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH", ""))))
