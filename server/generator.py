"""The one object that routes ask for pictures: accepts, lets wait, hands to the executor, times out, drains.

Knows nothing of HTTP. Who is next is in `jobs/queue.py`; where a job is drawn is in `executors/`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import secrets
import time

from engine.errors import EngineError
from engine.params import GenerationParams
from server.errors import (
    DrainingError,
    EngineFailedError,
    EngineLostError,
    QueueFullError,
    RequestTimeoutError,
)
from server.executors.base import Executor, Job
from server.executors.messages import EngineInfo, ImageReady, JobDone, Progress
from server.jobs.life import AcceptedJob, Drawing
from server.jobs.pace import Pace
from server.jobs.queue import JobQueue

__all__ = ["ImageGenerator"]


class ImageGenerator:
    """Draws pictures for many callers with one warm model. Belongs to the event loop's thread.

    Pictures *in flight* are with the executor, at most as many as it says; requests beyond them wait, at most
    `max_queued_requests`. While the model loads, all wait.
    """

    def __init__(self, executor: Executor, *, max_queued_requests: int, request_timeout_s: float) -> None:
        self.executor = executor
        self._queue = JobQueue(max_queued_requests)
        self._request_timeout_s = request_timeout_s
        self._running: dict[str, AcceptedJob] = {}
        self._pace = Pace()
        self._watch: asyncio.Task[None] | None = None
        self._is_draining = False

    # --- what it is doing ---------------------------------------------------------------------------------------------

    @property
    def is_draining(self) -> bool:
        """Whether it has stopped to accept requests, for good."""
        return self._is_draining

    @property
    def num_waiting(self) -> int:
        """Requests that wait their turn."""
        return len(self._queue)

    @property
    def num_images_in_flight(self) -> int:
        """Pictures that the executor is drawing."""
        return sum(accepted.job.params.num_images for accepted in self._running.values())

    @property
    def seconds_per_work_unit(self) -> float | None:
        """The pace of late; None until anything was drawn."""
        return self._pace.seconds_per_work_unit

    # --- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to load the model and return at once."""
        await self.executor.start()
        self._hand_over()

    async def drain(self) -> None:
        """Accept nothing more, cancel what runs, and tell every caller. Waits until the executor has let go."""
        self._is_draining = True
        running = list(self._running.values())
        for accepted in (*self._queue.take_all(), *running):
            accepted.fail(DrainingError("the server is shutting down; ask again when it is back"))
        tasks = [accepted.task for accepted in running if accepted.task is not None]
        if self._watch is not None:
            tasks.append(self._watch)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def stop(self) -> None:
        """Drain, then end the engine."""
        await self.drain()
        await self.executor.stop()

    # --- pictures -----------------------------------------------------------------------------------------------------

    async def generate(self, params: GenerationParams, output_format: str) -> Drawing:
        """Draw a request's pictures. Cancelling the call cancels the drawing before its next step.

        Args:
            params: what to draw.
            output_format: `png`, `webp` or `jpeg`.

        Raises:
            QueueFullError: as many requests wait as may wait.
            RequestTimeoutError: not finished in time, waiting included; it has been cancelled.
            DrainingError: the server is shutting down.
            EngineFailedError: the model cannot be served.
            EngineLostError: the engine ended while it drew.
            EngineError: the engine could not draw this.
        """
        accepted = self._accept(Job(id=secrets.token_hex(8), params=params, output_format=output_format))
        try:
            async with asyncio.timeout(self._request_timeout_s):
                return await accepted.outcome
        except TimeoutError:
            raise RequestTimeoutError(
                f"not finished within {self._request_timeout_s:g} s of waiting and drawing; it has been cancelled",
                retry_after_s=self._seconds_until_room(),
            ) from None
        finally:
            self._let_go(accepted)

    def _accept(self, job: Job) -> AcceptedJob:
        if self._is_draining:
            raise DrainingError("the server is shutting down; ask again when it is back")
        if self.executor.state in {"failed", "stopped"}:
            raise self._engine_failed()
        accepted = AcceptedJob(
            job=job,
            accepted_at=_now(),
            outcome=asyncio.get_running_loop().create_future(),
            work_units_left=job.params.work_units,
        )
        starts_at_once = self._queue.first is None and self._has_room_for(accepted)
        if self._queue.is_full and not starts_at_once:
            raise QueueFullError(
                f"{len(self._queue)} requests wait already, and no more may wait",
                retry_after_s=self._seconds_until_room(),
            )
        self._queue.put(accepted)
        self._hand_over()
        return accepted

    def _let_go(self, accepted: AcceptedJob) -> None:
        """Nobody waits for this any more: free its place, whatever has become of it."""
        accepted.outcome.cancel()
        self._queue.remove(accepted)
        # Only what has no outcome yet is still being drawn; a task that has told its outcome is about to end by itself.
        if accepted.task is not None:
            accepted.task.cancel()
        self._hand_over()

    # --- handing over -------------------------------------------------------------------------------------------------

    def _hand_over(self) -> None:
        """Give the executor what it has room for, in order."""
        if self._is_draining:
            return
        if self.executor.state in {"failed", "stopped"}:
            for accepted in self._queue.take_all():
                accepted.fail(self._engine_failed())
        elif self.executor.state == "loading":
            self._watch_loading()
        while (first := self._queue.first) is not None and self._has_room_for(first):
            self._queue.remove(first)
            self._running[first.job.id] = first
            self._pace.begin(_now())
            first.task = asyncio.create_task(self._run(first), name=f"draw {first.job.id}")
            # Not in the task's own `finally`: a task that is cancelled before its first turn never gets there.
            first.task.add_done_callback(functools.partial(self._has_ended, first))

    def _has_room_for(self, accepted: AcceptedJob) -> bool:
        info: EngineInfo | None = self.executor.info
        if self.executor.state != "ready" or info is None:
            return False
        # A request for more pictures than fit together runs alone: the engine draws them in turn.
        free = info.max_images_in_flight - self.num_images_in_flight
        return not self._running or accepted.job.params.num_images <= free

    def _watch_loading(self) -> None:
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._hand_over_when_ready(), name="wait until the model is warm")

    async def _hand_over_when_ready(self) -> None:
        with contextlib.suppress(EngineError):  # the executor's state tells it to everybody who asks
            await self.executor.wait_until_ready()
        # In the next turn of the loop this task has ended, and a new one could watch a new start.
        asyncio.get_running_loop().call_soon(self._hand_over)

    async def _run(self, accepted: AcceptedJob) -> None:
        try:
            accepted.finish(await self._draw(accepted))
        except Exception as error:  # noqa: BLE001 -- whatever it was, the caller must not wait for ever
            accepted.fail(error)

    def _has_ended(self, accepted: AcceptedJob, _task: asyncio.Task[None]) -> None:
        del self._running[accepted.job.id]
        if not self._running:
            self._pace.pause(_now())
        self._hand_over()

    async def _draw(self, accepted: AcceptedJob) -> Drawing:
        params = accepted.job.params
        work_units_a_step = params.work_units / (params.num_images * params.model_calls)
        queue_s = _now() - accepted.accepted_at
        images: dict[int, ImageReady] = {}
        done: JobDone | None = None
        async with contextlib.aclosing(self.executor.run(accepted.job)) as events:
            async for event in events:
                if isinstance(event, Progress):
                    accepted.work_units_left = max(0.0, accepted.work_units_left - work_units_a_step)
                    self._pace.work_done(work_units_a_step, _now())
                elif isinstance(event, ImageReady):
                    images[event.image_index] = event
                else:
                    done = event
        if done is None or len(images) != params.num_images:
            raise EngineLostError("the engine ended without handing over every picture")
        return Drawing(
            images=tuple(image for _, image in sorted(images.items())),
            truncated_tokens=done.truncated_tokens,
            queue_s=queue_s,
            encode_s=done.encode_s,
            denoise_s=done.denoise_s,
            decode_s=done.decode_s,
            file_s=done.file_s,
        )

    # --- what callers are told ----------------------------------------------------------------------------------------

    def _engine_failed(self) -> EngineFailedError:
        return EngineFailedError(f"the model cannot be served: {self.executor.failure or 'the engine has ended'}")

    def _seconds_until_room(self) -> float:
        """After how many seconds, counted up, a new request will find a place to wait.

        That is when what runs now has been drawn; at the latest, the oldest that waits will have run out of time.
        """
        first = self._queue.first
        latest = self._request_timeout_s if first is None else first.accepted_at + self._request_timeout_s - _now()
        pace = self._pace.seconds_per_work_unit
        if pace is None or not self._running:
            return max(1.0, latest)
        ahead = sum(accepted.work_units_left for accepted in self._running.values())
        return float(max(1, math.ceil(min(latest, ahead * pace))))


def _now() -> float:
    # Not the loop's own time: uvloop counts whole milliseconds.
    return time.monotonic()
