"""An executor whose engine draws nothing, on time, on a thread of this process, with scripted faults. No torch.

For tests that want a server with an engine in their own process. (The same engine in a process of its own, which can be
killed, is `MODEL_ID=fake-engine`.)
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from server.executors.base import Job, JobEvent
from server.executors.messages import FromEngine, LoadFailed, LoadProgress, WorkDone
from server.worker.fake_engine import FakeEngine
from server.worker.fake_pictures import fake_info
from server.worker.in_process import InProcessExecutor, Send

__all__ = ["FakeExecutor"]


class FakeExecutor(InProcessExecutor):
    """Runs a `FakeEngine`. Belongs to the event loop's thread, faults included."""

    allowed_silence_s: float = 10.0
    process_id: int | None = None

    def __init__(
        self,
        *,
        load_s: float = 0.0,
        step_s: float = 0.0,
        load_failure: str | None = None,
        max_images_in_flight: int = 2,
        allowed_silence_s: float = 10.0,
    ) -> None:
        super().__init__(self._make_fake, fake_info("fake", max_images_in_flight))
        self.allowed_silence_s = allowed_silence_s
        self._load_s = load_s
        self._step_s = step_s
        self._load_failure = load_failure
        self._max_images_in_flight = max_images_in_flight
        self._loading: asyncio.Task[None] | None = None
        self._is_awake = threading.Event()
        self._is_awake.set()
        self._hung_at = 0.0
        self._next_error: Exception | None = None
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
        self._hung_at = time.monotonic()

    def wake(self) -> None:
        """Go on after `hang`."""
        self._is_awake.set()

    def die(self) -> None:
        """End for good: every running job is lost."""
        self._end()
        self._state, self._failure = "failed", "the engine process ended"

    def restart(self) -> None:
        """End like a killed process that is replaced: every running job is lost, and loading begins anew."""
        self._end()
        self._state, self._failure = "loading", None  # after `die`, too
        self._has_loaded.clear()
        self._restart_reasons["ended"] += 1
        self._engine_begins()
        self._loading = asyncio.create_task(self._load())

    def fail_next(self, error: Exception) -> None:
        """Let the next job fail."""
        self._next_error = error

    def say(self, message: FromEngine) -> None:
        """Take a message as if the engine had sent it."""
        self._receive(message)

    # --- the executor protocol ----------------------------------------------------------------------------------------

    @property
    def silence_s(self) -> float:
        """Grows only while it hangs."""
        return 0.0 if self._is_awake.is_set() or self._state == "loading" else time.monotonic() - self._hung_at

    async def start(self) -> None:
        """Begin the scripted loading time."""
        self._loading = asyncio.create_task(self._load())

    async def run(self, job: Job) -> AsyncGenerator[JobEvent, None]:
        """See `Executor.run`. Counts what is with the engine, and fails if the script says so."""
        num_images = job.params.num_images
        self.started.append(job)
        self.images_in_flight += num_images
        self.most_images_at_once = max(self.most_images_at_once, self.images_in_flight)
        try:
            error, self._next_error = self._next_error, None
            if error is not None:
                raise error
            async with aclosing(super().run(job)) as events:
                async for event in events:
                    self.steps_taken += isinstance(event, WorkDone) and event.kind == "step"
                    yield event
        finally:
            self.images_in_flight -= num_images

    async def stop(self) -> None:
        """See `Executor.stop`."""
        self._is_awake.set()
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)
        await super().stop()

    def _make_fake(self, send: Send) -> FakeEngine:
        awake = self._is_awake
        return FakeEngine(
            send,
            step_s=self._step_s,
            max_images_in_flight=self._max_images_in_flight,
            apply_faults=lambda _: awake.wait(),
        )

    async def _load(self) -> None:
        await asyncio.sleep(self._load_s)
        if self._load_failure is not None:
            self._receive(LoadFailed(self._load_failure))
            return
        self._receive(LoadProgress("load", self._load_s))
        await super().start()

    def _end(self) -> None:
        self._is_awake.set()  # so that its thread ends; the next engine has another
        self._is_awake = threading.Event()
        self._is_awake.set()
        if self._worker is not None:
            self._worker.stop()
            self._worker = None
        self._engine_has_ended("the engine process ended while drawing")
