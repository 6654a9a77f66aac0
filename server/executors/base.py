"""What every place where jobs run has in common: the `Executor` protocol."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Literal, Protocol

from engine.params import GenerationParams
from server.executors.messages import EngineInfo, ImageReady, JobDone, Preview, Progress
from server.executors.work_times import WorkTimes

__all__ = ["Executor", "ExecutorState", "Job", "JobEvent"]

ExecutorState = Literal["loading", "ready", "failed", "stopped"]

JobEvent = Progress | Preview | ImageReady | JobDone
"""What a running job tells; `JobDone` is the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One accepted request for pictures, on its way to an engine."""

    id: str
    params: GenerationParams
    output_format: str
    """`png`, `webp` or `jpeg`."""
    previews: bool = True
    """Whether anybody looks while it is drawn."""


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
    def info(self) -> EngineInfo | None:
        """What is running; None until it was ready once."""
        ...

    @property
    def silence_s(self) -> float:
        """Seconds since the engine's own thread last gave a sign of life; 0.0 while loading."""
        ...

    @property
    def allowed_silence_s(self) -> float:
        """Seconds of silence after which something is wrong: longer than any work item of late would take."""
        ...

    @property
    def load_seconds(self) -> dict[str, float]:
        """Seconds that each phase of the start took (see `LoadProgress`), as far as they have ended."""
        ...

    @property
    def restarts(self) -> int:
        """How many engines were started after the first one."""
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
            EngineError: the engine could not draw it.
            EngineLostError: the engine ended or was replaced while drawing; another one may draw the job.
        """
        ...

    async def stop(self) -> None:
        """End the engine and wait for it."""
        ...
