"""Follows a job to its end: by its event stream, reopened when it is lost, then by polling.

Decides and remembers; never waits and never sends.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from semantic_bit_client.calls import progress_of
from semantic_bit_client.deadline import Deadline
from semantic_bit_client.errors import SemanticBitError, ServerFault
from semantic_bit_client.event_stream import EventStream
from semantic_bit_client.models import Progress
from semantic_bit_client.retries import Retries, is_passing

__all__ = ["EventSession", "JobFollower", "Step"]

_MOST_LOSSES: Final = 3
"""Streams lost one after the other, without anything new, after which it polls instead of listening."""

_KEEP_ALIVE_S: Final = 15.0
"""The server says something at least this often."""

_OVERTIME_S: Final = 1.0
"""How far beyond the caller's time a stream may be waited for. Its wait is fixed when it is opened."""

_SHORTEST_LOOK_S: Final = 0.2
_LONGEST_LOOK_S: Final = 5.0
_USUAL_LOOK_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Step:
    """What to do next."""

    pause_s: float
    """Seconds to wait before."""
    is_listening: bool
    """Whether to open the event stream; else to ask for the job's state once."""
    silence_s: float
    """Seconds without a word after which the stream counts as lost."""


class JobFollower:
    """When to listen to one job's events, when to poll instead, and how long to wait. Belongs to one caller."""

    def __init__(
        self,
        job_id: str,
        *,
        retries: Retries,
        read_timeout_s: float,
        deadline: Deadline,
        eta_s: float | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._job_id = job_id
        self._retries = retries
        self._read_timeout_s = read_timeout_s
        """Seconds that an answer may be late."""
        self.deadline = deadline
        self._eta_s = eta_s
        self._chance = chance
        self._last: Progress | None = None
        self._losses = 0
        self._retry_after_s = 0.0

    @property
    def is_over(self) -> bool:
        """Whether the job has ended."""
        return self._last is not None and self._last.is_over

    def plan(self) -> Step:
        """What to do next.

        Raises:
            TookTooLong: the caller's time is over.
        """
        left_s = self.deadline.left_s(self._job_id)
        is_listening = self._losses < _MOST_LOSSES
        if not is_listening:
            pause_s = _USUAL_LOOK_S if self._eta_s is None else self._eta_s / 2
            pause_s = min(max(pause_s, _SHORTEST_LOOK_S), _LONGEST_LOOK_S)
        else:
            pause_s = self._retries.backoff_s(self._losses, self._chance) if self._losses else 0.0
        return Step(
            pause_s=min(max(pause_s, self._retry_after_s), left_s),
            is_listening=is_listening,
            silence_s=min(self._silence_s(), left_s),
        )

    def heard(self, progress: Progress) -> bool:
        """Take note of what the server said; whether it is new."""
        before, self._last = self._last, progress
        self._eta_s = progress.eta_s
        self._retry_after_s = 0.0
        # The time left changes with every look and is no news by itself.
        is_new = before is None or replace(progress, eta_s=None) != replace(before, eta_s=None)
        if is_new and self._losses < _MOST_LOSSES:
            self._losses = 0
        return is_new

    def lost(self, error: SemanticBitError | None) -> None:
        """The stream ended before the job did.

        Raises:
            SemanticBitError: the error, where listening or looking again would meet it too.
        """
        self._losses += 1
        if error is None:
            self._retry_after_s = 0.0
            return
        if not is_passing(error) and not isinstance(error, ServerFault):
            raise error
        self._retry_after_s = error.retry_after_s or 0.0
        if self._retry_after_s > self._retries.time_s:
            raise error

    def is_worth_waiting(self, step: Step) -> bool:
        """Whether to wait for more of the stream that this step opened; else to plan anew.

        Raises:
            TookTooLong: the caller's time is over.
        """
        return self.deadline.left_s(self._job_id) > step.silence_s - _OVERTIME_S

    def _silence_s(self) -> float:
        """A job that should be done soon is looked after sooner than the next sign of life would come."""
        longest_s = _KEEP_ALIVE_S + self._read_timeout_s
        return longest_s if self._eta_s is None else min(max(self._eta_s, 0.0) + self._read_timeout_s, longest_s)


class EventSession:
    """One event stream of a job that a `JobFollower` follows. Belongs to one caller."""

    def __init__(self, follower: JobFollower, step: Step) -> None:
        self._follower = follower
        self._step = step
        self._stream = EventStream()

    def take(self, piece: bytes) -> Iterator[Progress]:
        """What is new in the next piece of the stream.

        Raises:
            BadAnswer: it is not such a stream.
        """
        for data in self._stream.take(piece):
            progress = progress_of(data)
            if self._follower.heard(progress):
                yield progress

    def goes_on(self) -> bool:
        """Whether to wait for the next piece. To be asked after every one, since also comments keep a stream open.

        Raises:
            TookTooLong: the caller's time is over.
        """
        return not self._follower.is_over and self._follower.is_worth_waiting(self._step)
