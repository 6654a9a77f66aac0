"""Engines behind one address, where somebody else balances: Ray Serve, an ingress. Their number is not known here."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing
from typing import Final

import msgspec

from server.executors.base import EngineBusyError, Job, JobEvent
from server.executors.messages import EngineInfo, ModelsChanged
from server.executors.remote import RemoteEngine

__all__ = ["BalancedEngines"]

_MODEL_HEADER: Final = "serve-multiplexed-model-id"


class BalancedEngines(RemoteEngine):
    """As many pictures are in flight as were taken so far: one more after each success at the limit, fewer after 503.

    Belongs to the event loop's thread.
    """

    _window = 1
    _in_flight = 0

    @property
    def info(self) -> EngineInfo | None:
        """See `Executor.info`: what one of them runs, with the places that all are thought to have."""
        info = super().info
        # Behind it may be engines of several classes.
        return (
            None if info is None else msgspec.structs.replace(info, max_images_in_flight=self._window, engine_class="")
        )

    @property
    def models(self) -> ModelsChanged | None:
        """See `Executor.models`: each of them may have others."""
        return None

    async def finish_early(self, job: Job, image_indices: Collection[int] | None) -> bool:  # noqa: ARG002 -- the protocol's
        """See `Executor.finish_early`. Which of them draws the job is not known here."""
        return False

    async def run(self, job: Job) -> AsyncGenerator[JobEvent, None]:
        """See `Executor.run`."""
        num_images = job.params.num_images
        self._in_flight += num_images
        is_at_limit = self._in_flight >= self._window
        try:
            async with aclosing(super().run(job)) as events:
                async for event in events:
                    if is_at_limit:  # it was taken: there may be room for more
                        self._window, is_at_limit = self._window + 1, False
                    yield event
        except EngineBusyError as error:
            error.is_fault = False  # without an answer in time, it has waited at the balancer for an engine to be free
            self._window = max(1, min(self._window, self._in_flight - num_images))
            raise
        finally:
            self._in_flight -= num_images

    def _routing(self, job: Job) -> Mapping[str, str]:
        """The model's name, by which Ray Serve prefers an engine that has it in memory."""
        return {_MODEL_HEADER: job.params.model} if job.params.model.isascii() and job.params.model else {}
