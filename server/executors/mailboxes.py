"""What the executors share: jobs go out as messages, what comes back is sorted into one mailbox a job."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from types import MappingProxyType
from typing import Final

from engine import errors
from engine.errors import EngineError, InvalidParamsError, ModelLoadError
from server.errors import EngineLostError
from server.executors.base import ExecutorState, Job, JobEvent
from server.executors.messages import (
    Cancel,
    EngineInfo,
    FromEngine,
    ImageReady,
    JobDone,
    JobFailed,
    LoadFailed,
    LoadProgress,
    Ping,
    Pong,
    Progress,
    Ready,
    Submit,
    ToEngine,
    WorkDone,
)

__all__ = ["MessageExecutor"]

logger = logging.getLogger(__name__)

_ERRORS: Final[Mapping[str, type[EngineError]]] = MappingProxyType(
    {name: getattr(errors, name) for name in errors.__all__ if name != "InvalidParamsError"}
)

_Letter = Progress | ImageReady | JobDone | JobFailed | EngineLostError


class MessageExecutor(ABC):
    """An executor whose engine is at the other end of a line. Belongs to the event loop's thread.

    A subclass opens the line: `start`, `stop`, `_send`; and tells `_receive` what comes in and `_lost` when it breaks.
    """

    def __init__(self) -> None:
        self._state: ExecutorState = "loading"
        self._failure: str | None = None
        self._info: EngineInfo | None = None
        self._load_seconds: dict[str, float] = {}
        self._mailboxes: dict[str, asyncio.Queue[_Letter]] = {}
        self._has_loaded = asyncio.Event()
        self._last_sign_of_life = time.monotonic()
        self._num_pings = 0

    @property
    def state(self) -> ExecutorState:
        """See `Executor.state`."""
        return self._state

    @property
    def failure(self) -> str | None:
        """See `Executor.failure`."""
        return self._failure

    @property
    def info(self) -> EngineInfo | None:
        """See `Executor.info`."""
        return self._info

    @property
    def load_seconds(self) -> dict[str, float]:
        """See `Executor.load_seconds`."""
        return dict(self._load_seconds)

    @property
    def silence_s(self) -> float:
        """See `Executor.silence_s`."""
        return time.monotonic() - self._last_sign_of_life if self._state == "ready" else 0.0

    async def wait_until_ready(self) -> None:
        """See `Executor.wait_until_ready`."""
        await self._has_loaded.wait()
        if self._failure is not None:
            raise ModelLoadError(self._failure)

    async def run(self, job: Job) -> AsyncGenerator[JobEvent, None]:
        """See `Executor.run`."""
        if self._state != "ready":
            raise EngineLostError("the engine is not running", retry_after_s=RESTART_ESTIMATE_S)
        mailbox: asyncio.Queue[_Letter] = asyncio.Queue()
        self._mailboxes[job.id] = mailbox
        has_ended = False
        try:
            self._send(Submit(job.id, job.params, job.output_format))
            while not has_ended:
                letter = await mailbox.get()
                has_ended = not isinstance(letter, Progress | ImageReady)
                match letter:
                    case JobFailed():
                        raise _error_from(letter)
                    case EngineLostError():
                        raise letter
                    case _:
                        yield letter
        finally:
            del self._mailboxes[job.id]
            if not has_ended:
                self._send(Cancel(job.id))

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

    def _receive(self, message: FromEngine) -> None:
        """Sort a message from the engine."""
        self._last_sign_of_life = time.monotonic()
        match message:
            case Progress() | ImageReady() | JobDone() | JobFailed():
                mailbox = self._mailboxes.get(message.job_id)
                if mailbox is not None:  # else it was cancelled while the message was on its way
                    mailbox.put_nowait(message)
            case LoadProgress(phase, seconds):
                self._load_seconds[phase] = seconds
            case Ready(info):
                self._info = info
                self._state = "ready"
                self._has_loaded.set()
            case LoadFailed(reason):
                self._failure = reason
                self._state = "failed"
                self._has_loaded.set()
            case WorkDone() | Pong():
                pass  # signs of life

    def _lost(self, reason: str) -> None:
        """The engine has ended: every job that it had ends too."""
        for mailbox in self._mailboxes.values():
            mailbox.put_nowait(EngineLostError(reason, retry_after_s=RESTART_ESTIMATE_S))


RESTART_ESTIMATE_S: Final = 15.0
"""What a caller is told to wait after its engine ended: imports, loading and warm-up take about that long on a CPU."""


def _error_from(failed: JobFailed) -> EngineError:
    if failed.field is not None and failed.rule is not None:
        return InvalidParamsError(failed.field, failed.rule, failed.value)
    return _ERRORS.get(failed.error, EngineError)(failed.message)
