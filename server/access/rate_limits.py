"""Rate limits of each API key: requests a minute, work units an hour, jobs at a time. No HTTP.

Moving windows: in no minute, wherever it begins, is more admitted than allowed. A fixed window would admit twice as
much around its border. What is refused takes nothing, so all that is allowed can be had.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from server.errors import RateLimitedError
from server.store.record import LOCAL_KEY

__all__ = ["KeyLimits", "Limit", "MovingWindow", "Reservation"]

_MINUTE_S: Final = 60
_HOUR_S: Final = 3600
_PER_WORK_UNIT: Final = 1000
"""Windows count in whole numbers, which add up exactly: thousandths of a work unit."""


class KeyLimits:
    """What each API key may ask for. Belongs to the event loop's thread.

    Whoever has no key is not limited: a program on this machine, the operator.
    """

    def __init__(
        self,
        *,
        requests_per_minute: int,
        work_units_per_hour: int,
        jobs: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with nothing taken. For each limit, 0 is none.

        Args:
            requests_per_minute: of every kind.
            work_units_per_hour: of jobs, when they are accepted.
            jobs: that wait or run at the same time.
            clock: seconds.
        """
        self.requests = Limit("requests", requests_per_minute, _MINUTE_S, "requests per minute", clock)
        """Of every kind; its headers belong to every answer."""
        self._work_units = Limit(
            "work-units", work_units_per_hour, _HOUR_S, "work units per hour", clock, scale=_PER_WORK_UNIT
        )
        self._max_jobs = jobs

    @contextlib.contextmanager
    def reserved(
        self, key_id: str, work_units: float, *, num_jobs: int, next_end_s: Callable[[], float]
    ) -> Iterator[Reservation]:
        """Hold a place for a job while it is being written down. What is not kept is given back.

        Args:
            key_id: whose job.
            work_units: what it costs.
            num_jobs: the key's jobs that wait or run, or are being written down.
            next_end_s: tells the seconds until one of them will have ended.

        Raises:
            RateLimitedError: the key has as many jobs as may be, or too little left.
        """
        if key_id == LOCAL_KEY:
            yield Reservation()
            return
        self._check_jobs(num_jobs, next_end_s)
        amount = math.ceil(work_units * _PER_WORK_UNIT)
        self._work_units.take(key_id, amount)
        reservation = Reservation()
        try:
            yield reservation
        finally:
            if not reservation.is_kept:
                self._work_units.give_back(key_id, amount)

    def _check_jobs(self, num_jobs: int, next_end_s: Callable[[], float]) -> None:
        if not self._max_jobs or num_jobs < self._max_jobs:
            return
        wait_s = next_end_s()
        raise RateLimitedError(
            f"at most {self._max_jobs} queued or running jobs per key; "
            f"one of them should end in {max(1, math.ceil(wait_s))} s",
            limit="jobs",
            retry_after_s=wait_s,
            headers={
                "RateLimit": '"jobs";r=0',
                "RateLimit-Policy": f'"jobs";q={self._max_jobs};qu="concurrent-requests"',
            },
        )


class Reservation:
    """A place that is held for a job; see `KeyLimits.reserved`."""

    def __init__(self) -> None:
        self.is_kept = False

    def keep(self) -> None:
        """The job was accepted: what it costs stays taken."""
        self.is_kept = True


class Limit:
    """One limit on every key, as a moving window, with its refusal and its headers; 0 is no limit."""

    def __init__(
        self, policy: str, quota: int, window_s: int, unit: str, clock: Callable[[], float], *, scale: int = 1
    ) -> None:
        """Begin with nothing taken.

        Args:
            policy: its name in the `RateLimit` headers.
            quota: how much of the unit within the window.
            window_s: how long the window is.
            unit: what is counted, in words: "requests per minute".
            clock: seconds.
            scale: amounts that are counted for each unit.
        """
        self._policy = policy
        self._quota = quota
        self._window_s = window_s
        self._unit = unit
        self._scale = scale
        self._window = MovingWindow(quota * scale, window_s, clock)

    def take(self, key_id: str, amount: int = 1) -> None:
        """Take so much.

        Raises:
            RateLimitedError: there is not so much left; nothing was taken.
        """
        if self._quota and not self._window.take(key_id, amount):
            raise self._refusal(key_id, amount)

    def give_back(self, key_id: str, amount: int) -> None:
        """Undo what was just taken."""
        self._window.give_back(key_id, amount)

    def headers(self, key_id: str) -> dict[str, str]:
        """What is left, as draft-ietf-httpapi-ratelimit-headers-11 writes it; empty where there is no limit."""
        if not self._quota:
            return {}
        left = self._window.left(key_id)
        # No more is left until the oldest that was taken has gone out of the window.
        wait_s = self._window.seconds_until(key_id, min(left + 1, self._quota * self._scale)) or self._window_s
        unit = "" if self._scale == 1 else f';qu="{self._policy}"'
        return {
            "RateLimit": f'"{self._policy}";r={left // self._scale};t={math.ceil(wait_s)}',
            "RateLimit-Policy": f'"{self._policy}";q={self._quota};w={self._window_s}{unit}',
        }

    def _refusal(self, key_id: str, amount: int) -> RateLimitedError:
        wait_s = self._window.seconds_until(key_id, amount)
        detail = f"at most {self._quota} {self._unit} per key"
        if math.isinf(wait_s):
            detail += f", and this request alone costs {amount / self._scale:g}"
            return RateLimitedError(detail, limit=self._policy, headers=self.headers(key_id))
        detail += f"; the next is possible in {max(1, math.ceil(wait_s))} s"
        return RateLimitedError(detail, limit=self._policy, headers=self.headers(key_id), retry_after_s=wait_s)


class MovingWindow:
    """At most `limit` within any `window_s` seconds, for each name. Belongs to one thread.

    The clock is not the wall's: a correction by an hour would lock everybody out for an hour.
    """

    def __init__(self, limit: int, window_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._window_s = window_s
        self._clock = clock
        self._taken: dict[str, _Taken] = {}
        """By name; the name that took something last is last."""

    def __len__(self) -> int:
        """Names that are remembered."""
        return len(self._taken)

    def take(self, name: str, amount: int = 1) -> bool:
        """Take so much, if there is so much left. Whether it was taken."""
        now = self._clock()
        self._forget_names(now)
        taken = self._current(name, now)
        if taken.total + amount > self._limit:
            return False
        taken.entries.append((now, amount))
        taken.total += amount
        self._taken.pop(name, None)  # to the end of the dictionary
        self._taken[name] = taken
        return True

    def give_back(self, name: str, amount: int) -> None:
        """Undo the latest taking of just so much, unless it counts no more."""
        taken = self._current(name, self._clock())
        for index in reversed(range(len(taken.entries))):
            if taken.entries[index][1] == amount:
                del taken.entries[index]
                taken.total -= amount
                return

    def left(self, name: str) -> int:
        """How much can be taken now."""
        return self._limit - self._current(name, self._clock()).total

    def seconds_until(self, name: str, amount: int) -> float:
        """Until so much can be taken, if nothing else is taken meanwhile; infinity where that is never."""
        if amount > self._limit:
            return math.inf
        now = self._clock()
        taken = self._current(name, now)
        excess = taken.total + amount - self._limit
        if excess <= 0:
            return 0.0
        for at, size in taken.entries:
            excess -= size
            if excess <= 0:
                return at + self._window_s - now
        raise AssertionError(f"{name} has taken {taken.total}, but its entries are less")

    def _current(self, name: str, now: float) -> _Taken:
        """What a name has taken that still counts."""
        taken = self._taken.get(name)
        if taken is None:
            return _Taken()
        taken.forget(now, self._window_s)
        return taken

    def _forget_names(self, now: float) -> None:
        """Keep no name of which nothing counts any more: keys come and go for years."""
        while self._taken:
            name = next(iter(self._taken))
            if self._current(name, now).entries:
                return
            del self._taken[name]


@dataclass(slots=True)
class _Taken:
    """What one name has taken within the window."""

    entries: list[tuple[float, int]] = field(default_factory=list)
    """When, and how much; oldest first. No deque: one with a single entry takes 760 bytes."""
    total: int = 0
    """Of all entries."""

    def forget(self, now: float, window_s: float) -> None:
        """Drop what was taken so many seconds ago or more."""
        num_over = 0
        for at, amount in self.entries:
            if at + window_s > now:
                break
            num_over += 1
            self.total -= amount
        del self.entries[:num_over]
