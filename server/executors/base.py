"""The `Executor` protocol: the interface of everything that runs jobs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from engine.params import GenerationParams
from server.executors.messages import (
    DeviceMemory,
    EngineInfo,
    ImageReady,
    JobDone,
    ModelsChanged,
    Preview,
    Progress,
    Submit,
    WorkDone,
)
from server.executors.work_times import WorkTimes
from server.picture_info.file_info import ImageMetadata

__all__ = ["EngineBusyError", "EngineVitals", "Executor", "ExecutorState", "Job", "JobEvent", "RestartReason"]

ExecutorState = Literal["loading", "ready", "failed", "stopped"]

RestartReason = Literal["ended", "silent", "slow_start", "not_started"]
"""Why an engine was replaced: it ended, gave no sign of life, did not get on with loading, or could not be started or
listened to.
"""

JobEvent = Progress | Preview | ImageReady | WorkDone | JobDone
"""What a running job tells; `WorkDone` is work that it had a part in, and `JobDone` the last."""


_SUBMITTED = tuple(name for name in Submit.__struct_fields__ if name != "job_id")
"""By name, so that a new field of the message cannot be forgotten on the way to an engine elsewhere."""


class EngineBusyError(Exception):
    """The engine did not begin the job, or was stopped on purpose: no attempt is used up."""

    def __init__(self, message: str, *, retry_after_s: float, is_fault: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        """Seconds for which it is not to be asked again."""
        self.is_fault = is_fault
        """Whether it should have answered: another engine is tried first, and this one left out if it goes on so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One attempt at an accepted request for pictures, on its way to an engine."""

    id: str
    attempt: int = 1
    """Its number, from 1: two attempts at a job may be on their way at the same time, one of them given up."""
    params: GenerationParams
    alone: bool = False
    """Whether no other job may be drawn with it: its last attempt."""
    output_format: str
    """`png`, `webp` or `jpeg`."""
    inputs: Mapping[str, bytes] = field(default_factory=dict)
    """SHA-256 -> PNG file, of the pictures that the request starts from."""
    image_metadata: ImageMetadata = "full"
    output_quality: int | None = None
    """As in `NewJob`."""

    @property
    def attempt_id(self) -> str:
        """What the engine knows it as, and says in each of its messages: the result of another attempt is refused."""
        return f"{self.id}.{self.attempt}"

    @property
    def submit(self) -> Submit:
        """What the engine is sent."""
        return Submit(self.attempt_id, **{name: getattr(self, name) for name in _SUBMITTED})

    @classmethod
    def of(cls, submit: Submit, job_id: str) -> Job:
        """What was sent, under a name of the receiver's."""
        return cls(id=job_id, **{name: getattr(submit, name) for name in _SUBMITTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineVitals:
    """What its operator wants to know of an engine, beside what it draws."""

    process_id: int | None = None
    """None while it has no process of its own."""
    restarts: Mapping[RestartReason, int] = field(default_factory=dict)
    """How many engines were started after the first one, by why."""
    out_of_memory: Mapping[str, int] = field(default_factory=dict)
    """How often the device had no room, by what for: `prepare`, `encode`, `step`, `decode`."""
    device_memory: DeviceMemory | None = None
    """As the engine told last; None where it has no memory of its own."""


class Executor(Protocol):
    """A place where jobs are drawn. All methods belong to the event loop's thread."""

    @property
    def state(self) -> ExecutorState:
        """`loading` until the model is warm; `failed` if it cannot be served."""
        ...

    @property
    def failure(self) -> str | None:
        """Why it failed, in words for the operator; None unless `failed`."""
        ...

    @property
    def load_trouble(self) -> str | None:
        """Why the engine before this one never got ready, in words for the operator; None if it did or is the first."""
        ...

    @property
    def info(self) -> EngineInfo | None:
        """What is running; None until it was ready once."""
        ...

    @property
    def models(self) -> ModelsChanged | None:
        """Which of several models are in memory; None where there is only one, or it is not known."""
        ...

    @property
    def silence_s(self) -> float:
        """Seconds since the engine's own thread last gave a sign of life; 0.0 while loading."""
        ...

    @property
    def allowed_silence_s(self) -> float:
        """Seconds of silence after which something is wrong: longer than any recent work item would take."""
        ...

    @property
    def load_seconds(self) -> dict[str, float]:
        """Seconds that each phase of the start took (see `LoadProgress`), as far as they have ended."""
        ...

    @property
    def load_phase(self) -> str | None:
        """What it does of its start just now (see `LoadProgress`); None while it does nothing of it."""
        ...

    @property
    def restarts(self) -> int:
        """How many engines were started after the first one."""
        ...

    @property
    def vitals(self) -> EngineVitals:
        """How the engine is."""
        ...

    @property
    def work_times(self) -> WorkTimes:
        """How long this engine's work items take; kept when it is replaced."""
        ...

    async def start(self) -> None:
        """Begin to load the model and return at once."""
        ...

    async def wait_until_ready(self) -> None:
        """Return when the model is warm.

        Raises:
            ModelLoadError: it cannot be served.
        """
        ...

    def run(self, job: Job) -> AsyncGenerator[JobEvent, None]:
        """Draw a job. Closing the generator cancels it before its next step.

        Raises:
            EngineBusyError: it was not begun.
            EngineError: the engine could not draw it.
            EngineLostError: the engine ended or was replaced while drawing; another one may draw the job.
        """
        ...

    async def finish_early(self, job: Job, image_indices: Collection[int] | None) -> bool:
        """Let pictures of a job that runs here be sent as far as they are; those with nothing to see are left out.

        Args:
            job: it goes on until every other picture is finished.
            image_indices: which; None: all that are left.

        Returns:
            Whether the engine was asked. If not, the job goes on as before.
        """
        ...

    async def stop(self) -> None:
        """End the engine and wait for it."""
        ...
