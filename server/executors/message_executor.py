"""Base of the executors: sends jobs as messages, and routes each message that comes back to its job."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncGenerator, Collection, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final, NamedTuple, get_args

import structlog

from engine import errors
from engine.errors import EngineError, InvalidParamsError, ModelLoadError
from server.errors import EngineLostError
from server.executors.base import EngineVitals, ExecutorState, Job, JobEvent, RestartReason
from server.executors.messages import (
    Cancel,
    DeviceMemory,
    EngineInfo,
    FinishEarly,
    FromEngine,
    ImageReady,
    JobDone,
    JobFailed,
    JobMessage,
    LoadFailed,
    Loading,
    LoadProgress,
    ModelsChanged,
    OutOfMemory,
    Ping,
    Pong,
    Preview,
    Progress,
    Ready,
    ToEngine,
    WorkDone,
)
from server.executors.work_times import WorkTimes

__all__ = ["RESTART_ESTIMATE_S", "MessageExecutor", "error_from"]

_log = structlog.get_logger("server.engine")

_ERRORS: Final[Mapping[str, type[EngineError]]] = MappingProxyType(
    {name: getattr(errors, name) for name in errors.__all__ if name != "InvalidParamsError"}
)

_FROM_OTHER_THREADS: Final = (Preview, ImageReady, JobDone, JobFailed, OutOfMemory, ModelsChanged)
"""What the engine process can say while its engine's own thread hangs: no signs of that one's life."""

_Letter = JobMessage | WorkDone | EngineLostError


RESTART_ESTIMATE_S: Final = 15.0
"""What a caller is told to wait for another engine, as long as no start was seen here."""


class _Running(NamedTuple):
    """A job that the engine has, and what it said of it."""

    job: Job
    letters: asyncio.Queue[_Letter]


class MessageExecutor(ABC):
    """An executor whose engine is at the other end of a line. Belongs to the event loop's thread.

    A subclass opens the line: `start`, `stop`, `_send`; and tells `_receive` what comes in, and `_engine_begins` and
    `_engine_has_ended` when they happen.
    """

    def __init__(self) -> None:
        self.work_times = WorkTimes()
        self._state: ExecutorState = "loading"
        self._failure: str | None = None
        self._info: EngineInfo | None = None
        self._load_seconds: dict[str, float] = {}
        self._load_phase: str | None = None
        self._unproven = frozenset[str]()
        """Kinds of work that this engine has not done yet: the first of a kind may take any time."""
        self._running: dict[str, _Running] = {}
        self._has_loaded = asyncio.Event()
        self._last_sign_of_life = time.monotonic()
        self._num_pings = 0
        self._began_at = time.monotonic()
        self._load_trouble: str | None = None
        self._ready_since: float | None = None
        self._has_worked = False
        self._restart_estimate_s = RESTART_ESTIMATE_S
        self._restart_reasons: Counter[RestartReason] = Counter(dict.fromkeys(get_args(RestartReason), 0))
        self._out_of_memory = Counter(dict.fromkeys(("prepare", "encode", "step", "decode"), 0))
        self._device_memory: DeviceMemory | None = None
        self._models: ModelsChanged | None = None

    @property
    def state(self) -> ExecutorState:
        """See `Executor.state`."""
        return self._state

    @property
    def failure(self) -> str | None:
        """See `Executor.failure`."""
        return self._failure

    @property
    def load_trouble(self) -> str | None:
        """See `Executor.load_trouble`."""
        return self._load_trouble

    @property
    def info(self) -> EngineInfo | None:
        """See `Executor.info`."""
        return self._info

    @property
    def models(self) -> ModelsChanged | None:
        """See `Executor.models`."""
        return self._models

    @property
    def load_seconds(self) -> dict[str, float]:
        """See `Executor.load_seconds`."""
        return dict(self._load_seconds)

    @property
    def load_phase(self) -> str | None:
        """See `Executor.load_phase`."""
        return self._load_phase if self._state == "loading" else None

    @property
    def silence_s(self) -> float:
        """See `Executor.silence_s`."""
        return self._seconds_without_sign if self._state == "ready" else 0.0

    @property
    def _seconds_without_sign(self) -> float:
        return time.monotonic() - self._last_sign_of_life

    @property
    def restarts(self) -> int:
        """See `Executor.restarts`."""
        return self._restart_reasons.total()

    @property
    def vitals(self) -> EngineVitals:
        """See `Executor.vitals`."""
        return EngineVitals(
            process_id=self.process_id,
            restarts=self._restart_reasons,
            out_of_memory=self._out_of_memory,
            device_memory=self._device_memory,
        )

    @property
    def process_id(self) -> int | None:
        """Of the running engine; None while it has no process of its own."""
        return None

    async def wait_until_ready(self) -> None:
        """See `Executor.wait_until_ready`."""
        await self._has_loaded.wait()
        if self._failure is not None:
            raise ModelLoadError(self._failure)

    async def run(self, job: Job) -> AsyncGenerator[JobEvent, None]:
        """See `Executor.run`."""
        if self._state != "ready":
            raise EngineLostError("the engine is not running", retry_after_s=self._restart_estimate_s)
        # Without what it starts from: the engine has it then, and it is large.
        running = self._running[job.attempt_id] = _Running(replace(job, inputs={}), asyncio.Queue())
        has_ended = False
        try:
            self._send(job.submit)
            while not has_ended:
                letter = await running.letters.get()
                has_ended = not isinstance(letter, Progress | Preview | ImageReady | WorkDone)
                match letter:
                    case JobFailed():
                        raise error_from(letter)
                    case EngineLostError():
                        raise letter
                    case _:
                        yield letter
        finally:
            del self._running[job.attempt_id]
            if not has_ended:
                self._send(Cancel(job.attempt_id))

    async def finish_early(self, job: Job, image_indices: Collection[int] | None) -> bool:
        """See `Executor.finish_early`."""
        if self._state != "ready" or job.attempt_id not in self._running:
            return False
        self._send(FinishEarly(job.attempt_id, None if image_indices is None else tuple(image_indices)))
        return True

    @property
    @abstractmethod
    def allowed_silence_s(self) -> float:
        """See `Executor.allowed_silence_s`."""

    @abstractmethod
    async def start(self) -> None:
        """See `Executor.start`."""

    @abstractmethod
    async def stop(self) -> None:
        """See `Executor.stop`."""

    @abstractmethod
    def _send(self, message: ToEngine) -> None:
        """Hand a message to the engine; do nothing if there is none."""

    def _ping(self) -> None:
        self._num_pings += 1
        self._send(Ping(self._num_pings))

    def _forgive_silence(self, seconds: float) -> None:
        """Restart the silence timer: seconds in which the event loop did not read do not count."""
        self._last_sign_of_life = min(time.monotonic(), self._last_sign_of_life + max(0.0, seconds))

    def _engine_begins(self) -> None:
        """Another engine is about to load."""
        self._began_at = time.monotonic()
        self._last_sign_of_life = time.monotonic()
        self._load_seconds = {}
        self._load_phase = None
        self._unproven = frozenset()
        self._device_memory = None
        self._models = None
        self._ready_since = None
        self._has_worked = False

    def _engine_has_ended(self, reason: str) -> None:
        """There is none until the next has loaded: every job that it had ends too."""
        if self._state == "ready":
            self._state = "loading"
            self._has_loaded.clear()
        self._lost(reason)

    def _receive(self, message: FromEngine) -> None:
        """Sort a message from the engine."""
        if not isinstance(message, _FROM_OTHER_THREADS):
            self._last_sign_of_life = time.monotonic()
        match message:
            case Progress() | Preview() | ImageReady() | JobDone() | JobFailed():
                running = self._running.get(message.job_id)
                if running is not None:  # else the attempt was given up while the message was on its way
                    running.letters.put_nowait(message)
            case Loading() | LoadProgress():
                self._take_phase(message)
            case Ready(info):
                self._info = info
                self._unproven = frozenset() if message.is_warm else frozenset({"step", "decode"})
                self._state = "ready"
                self._ready_since = time.monotonic()
                self._restart_estimate_s = max(1.0, sum(self._load_seconds.values()))
                self._load_trouble = None
                self._has_loaded.set()
                seconds = round(time.monotonic() - self._began_at, 1)
                _log.info(
                    f"ready after {seconds} s",
                    model=info.model_id,
                    device=info.device_name,
                    dtype=info.dtype,
                    backend=info.backend,
                    threads=info.num_threads,
                )
            case LoadFailed(reason):  # at warm-up, an engine may say so that was ready
                _log.error("the model cannot be served", reason=reason)
                self._failure = reason
                self._state = "failed"
                self._has_loaded.set()
            case WorkDone():
                self._take_work(message)
            case OutOfMemory() | ModelsChanged() | Pong():
                self._take_memory(message)

    def _take_memory(self, message: OutOfMemory | ModelsChanged | Pong) -> None:
        match message:
            case OutOfMemory(kind):
                self._out_of_memory[kind] += 1
            case ModelsChanged():
                self._models = message
            case Pong():
                self._device_memory = message.device_memory

    def _take_phase(self, message: Loading | LoadProgress) -> None:
        if isinstance(message, Loading):
            self._load_phase = message.phase
        else:
            self._load_seconds[message.phase] = message.seconds

    def _take_work(self, item: WorkDone) -> None:
        """Record its duration, and notify the jobs that had a part in it."""
        self.work_times.observe(item)
        self._unproven -= {item.kind}
        for job_id in item.rows_by_job.keys() & self._running.keys():
            self._running[job_id].letters.put_nowait(item)
        self._has_worked = self._has_worked or bool(item.rows_by_job)  # the others are the warm-up's

    def _lost(self, reason: str) -> None:
        """The engine has ended: every job that it had ends too."""
        for running in self._running.values():
            running.letters.put_nowait(EngineLostError(reason, retry_after_s=self._restart_estimate_s))


def error_from(failed: JobFailed) -> EngineError | EngineLostError:
    """The error that an engine tells of."""
    if failed.error == EngineLostError.__name__:  # of an engine elsewhere, whose process was lost
        return EngineLostError(failed.message)
    if failed.field is not None and failed.rule is not None:
        return InvalidParamsError(failed.field, failed.rule, failed.value)
    return _ERRORS.get(failed.error, EngineError)(failed.message)
