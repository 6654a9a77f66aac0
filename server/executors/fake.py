"""An engine that draws nothing, on time: the executor protocol with scripted step times and faults. No torch, no numpy.

For tests of queue, life cycle and load that want it in their own process. (One in a process of its own, which can be
killed, is `fake_engine.py`.)
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

from engine.errors import EngineError, ModelLoadError
from server.errors import EngineLostError
from server.executors.base import EngineVitals, ExecutorState, Job, JobEvent
from server.executors.fake_pictures import fake_image, fake_info, fake_job_done, fake_preview, fake_work
from server.executors.messages import DeviceMemory, EngineInfo, Progress, WorkDone
from server.executors.work_times import WorkTimes

__all__ = ["FakeExecutor"]

_RESTART_ESTIMATE_S = 15.0


class FakeExecutor:
    """Takes a job's steps by sleeping. Belongs to the event loop's thread, faults included."""

    def __init__(
        self,
        *,
        load_s: float = 0.0,
        step_s: float = 0.0,
        load_failure: str | None = None,
        max_images_in_flight: int = 2,
        allowed_silence_s: float = 10.0,
    ) -> None:
        self.allowed_silence_s = allowed_silence_s
        self._load_s = load_s
        self._step_s = step_s
        self._load_failure = load_failure
        self._max_images_in_flight = max_images_in_flight
        self._state: ExecutorState = "loading"
        self._failure: str | None = None
        self._loading: asyncio.Task[None] | None = None
        self._has_loaded = asyncio.Event()
        self._is_awake = asyncio.Event()
        self._is_awake.set()
        self._death = asyncio.Event()
        self._last_sign = time.monotonic()
        self._next_error: EngineError | None = None
        self.work_times = WorkTimes()
        self.restarts = 0
        self.process_id: int | None = None
        """That `vitals` tells."""
        self.out_of_memory: dict[str, int] = {}
        """That `vitals` tells."""
        self.device_memory: DeviceMemory | None = None
        """That `vitals` tells."""
        self.steps_taken = 0
        """Of all jobs so far."""
        self.most_images_at_once = 0
        """The largest number of pictures that were ever with this engine together."""
        self.images_in_flight = 0
        self.started: list[Job] = []
        """Every job that was ever handed over, in order."""

    # --- faults -------------------------------------------------------------------------------------------------------

    def hang(self) -> None:
        """Give no sign of life from now on, like a GPU that does not answer."""
        self._is_awake.clear()
        self._last_sign = time.monotonic()

    def wake(self) -> None:
        """Go on after `hang`."""
        self._is_awake.set()

    def die(self) -> None:
        """End for good: every running job is lost."""
        self._state, self._failure = "failed", "the engine process ended"
        self._death.set()

    def restart(self) -> None:
        """End like a killed process that is replaced: every running job is lost, and loading begins anew."""
        self._death.set()
        self._death = asyncio.Event()
        self._state = "loading"
        self._has_loaded.clear()
        self.restarts += 1
        self._loading = asyncio.create_task(self._load())

    def fail_next(self, error: EngineError) -> None:
        """Let the next job fail."""
        self._next_error = error

    # --- the executor protocol ----------------------------------------------------------------------------------------

    @property
    def state(self) -> ExecutorState:
        """`ready` once the scripted time is over."""
        return self._state

    @property
    def failure(self) -> str | None:
        """The scripted failure."""
        return self._failure

    @property
    def info(self) -> EngineInfo | None:
        """Constant, once loaded."""
        if not self._has_loaded.is_set() or self._load_failure is not None:
            return None
        return fake_info("fake", self._max_images_in_flight)

    @property
    def silence_s(self) -> float:
        """Grows only while it hangs."""
        return 0.0 if self._is_awake.is_set() or self._state == "loading" else time.monotonic() - self._last_sign

    @property
    def vitals(self) -> EngineVitals:
        """As scripted. Every restart is an engine that ended."""
        return EngineVitals(
            process_id=self.process_id,
            restarts={"ended": self.restarts},
            out_of_memory=self.out_of_memory,
            device_memory=self.device_memory,
        )

    @property
    def load_seconds(self) -> dict[str, float]:
        """The scripted time."""
        return {"load": self._load_s} if self._state == "ready" else {}

    async def start(self) -> None:
        """Begin the scripted loading time."""
        self._loading = asyncio.create_task(self._load())

    async def wait_until_ready(self) -> None:
        """Return when the scripted time is over.

        Raises:
            ModelLoadError: the script says so.
        """
        await self._has_loaded.wait()
        if self._load_failure is not None:
            raise ModelLoadError(self._load_failure)

    async def run(self, job: Job) -> AsyncGenerator[JobEvent, None]:
        """Take the job's steps, picture by picture.

        Raises:
            EngineError: `fail_next` said so.
            EngineLostError: `die` was called.
        """
        params, death = job.params, self._death
        self.started.append(job)
        self.images_in_flight += params.num_images
        self.most_images_at_once = max(self.most_images_at_once, self.images_in_flight)
        try:
            error, self._next_error = self._next_error, None
            if error is not None:
                raise error
            began = time.monotonic()
            yield self._worked("encode", 0.0, job)
            for step in range(1, params.model_calls + 1):
                yield await self._take_step(job, death)
                for index in range(params.num_images):
                    yield Progress(job.id, index, step, params.model_calls)
                    preview = fake_preview(job.id, params, index, step) if job.previews else None
                    if preview is not None:
                        yield preview
            denoise_s = time.monotonic() - began
            for index in range(params.num_images):
                yield self._worked("decode", 0.0, job)
                yield fake_image(job.id, params, index, job.output_format)
            yield fake_job_done(job.id, params, denoise_s)
        finally:
            self.images_in_flight -= params.num_images

    async def stop(self) -> None:
        """End, and every job with it."""
        self._state = "stopped"
        self._death.set()
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)

    async def _load(self) -> None:
        await asyncio.sleep(self._load_s)
        self._state = "ready" if self._load_failure is None else "failed"
        self._failure = self._load_failure
        self._has_loaded.set()

    async def _take_step(self, job: Job, death: asyncio.Event) -> WorkDone:
        began = time.monotonic()
        await asyncio.sleep(self._step_s)
        if not self._is_awake.is_set():
            await _first_of(self._is_awake, death)
        if death.is_set():
            raise EngineLostError("the engine process ended while drawing", retry_after_s=_RESTART_ESTIMATE_S)
        self.steps_taken += 1
        return self._worked("step", time.monotonic() - began, job)

    def _worked(self, kind: str, seconds: float, job: Job) -> WorkDone:
        whose = {job.id: job.params.rows_per_image * (1 if kind == "decode" else job.params.num_images)}
        work = fake_work(kind, seconds, job.params, self._max_images_in_flight, whose)
        self.work_times.observe(work)
        return work


async def _first_of(*events: asyncio.Event) -> None:
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
