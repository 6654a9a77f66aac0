"""An engine that draws nothing, on time: the executor protocol with scripted step times and faults. No torch, no numpy.

For tests of queue, life cycle and load, and for trying the service without a model. Its pictures are tiny and depend on
everything that was asked, so that a swapped seed, prompt or size shows.
"""

from __future__ import annotations

import asyncio
import hashlib
import struct
import time
import zlib
from collections.abc import AsyncGenerator

from engine.errors import EngineError, ModelLoadError
from engine.params import GenerationParams
from server.errors import EngineLostError
from server.executors.base import ExecutorState, Job, JobEvent
from server.executors.messages import EngineInfo, ImageReady, JobDone, Progress

__all__ = ["FakeExecutor", "fake_png"]

_SIZE = 8
"""Pixels along each side of a fake picture."""
_RESTART_ESTIMATE_S = 15.0
_READABLE_CHARACTERS = 300
"""Of the prompt; stands for the 77 tokens of a real text encoder."""


class FakeExecutor:
    """Takes a job's steps by sleeping. Belongs to the event loop's thread, faults included."""

    def __init__(
        self,
        *,
        load_s: float = 0.0,
        step_s: float = 0.0,
        load_failure: str | None = None,
        max_images_in_flight: int = 2,
    ) -> None:
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
        """End like a killed process: every running job is lost."""
        self._state, self._failure = "failed", "the engine process ended"
        self._death.set()

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
        return EngineInfo(
            model_id="fake",
            device="cpu",
            device_name="no device",
            dtype="float32",
            native_height=512,
            native_width=512,
            rows_per_call=2 * self._max_images_in_flight,
            max_images_in_flight=self._max_images_in_flight,
        )

    @property
    def silence_s(self) -> float:
        """Grows only while it hangs."""
        return 0.0 if self._is_awake.is_set() or self._state == "loading" else time.monotonic() - self._last_sign

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
        params = job.params
        self.started.append(job)
        self.images_in_flight += params.num_images
        self.most_images_at_once = max(self.most_images_at_once, self.images_in_flight)
        try:
            error, self._next_error = self._next_error, None
            if error is not None:
                raise error
            began = time.monotonic()
            for step in range(1, params.model_calls + 1):
                await self._take_step()
                for index in range(params.num_images):
                    yield Progress(job.id, index, step, params.model_calls)
            denoise_s = time.monotonic() - began
            for index, seed in enumerate(params.seeds):
                yield ImageReady(job.id, index, seed, fake_png(params, seed), f"image/{job.output_format}")
            truncated = max(len(params.prompt), len(params.negative_prompt)) - _READABLE_CHARACTERS
            yield JobDone(job.id, 0.0, denoise_s, 0.0, 0.0, max(0, truncated))
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

    async def _take_step(self) -> None:
        await asyncio.sleep(self._step_s)
        if not self._is_awake.is_set():
            await _first_of(self._is_awake, self._death)
        if self._death.is_set():
            raise EngineLostError("the engine process ended while drawing", retry_after_s=_RESTART_ESTIMATE_S)
        self.steps_taken += 1


async def _first_of(*events: asyncio.Event) -> None:
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


def fake_png(params: GenerationParams, seed: int) -> bytes:
    """A valid PNG of 8x8 pixels whose colours are a hash of everything that was asked."""
    wish = repr(
        (
            params.prompt,
            params.negative_prompt,
            params.num_inference_steps,
            params.guidance_scale,
            params.height,
            params.width,
            seed,
            params.sampler,
            params.noise_schedule,
        )
    )
    pixels = hashlib.shake_256(wish.encode()).digest(_SIZE * _SIZE * 3)
    rows = b"".join(b"\0" + pixels[at : at + 3 * _SIZE] for at in range(0, len(pixels), 3 * _SIZE))
    header = struct.pack(">IIBBBBB", _SIZE, _SIZE, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
