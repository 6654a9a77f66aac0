"""How much was taken in the last minute or hour: what `limits`' moving windows are counted in, in this process.

In place of the library's own memory storage, which counts on the wall clock (a correction by an hour locks everybody
out for an hour), tidies up in a thread beside the event loop, and never forgets a name that it has seen once.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from limits.storage import MemoryStorage

__all__ = ["MAX_NAMES", "MovingWindows"]

MAX_NAMES: Final = 20_000
"""Names that are remembered, the latest seen; some megabytes. Whoever has so many addresses is not held by a limit for
each, so forgetting the oldest gives nothing away."""


@dataclass(slots=True)
class _Window:
    """What one name has taken."""

    expiry_s: int
    taken: list[tuple[float, int]] = field(default_factory=list)
    """When, and how much; oldest first. No deque: one with a single entry takes 760 bytes."""
    amount: int = 0
    """Of all that."""

    def forget(self, now: float) -> None:
        num_over = 0
        for at, amount in self.taken:
            if at + self.expiry_s > now:
                break
            num_over += 1
            self.amount -= amount
        del self.taken[:num_over]


class MovingWindows(MemoryStorage):
    """The windows of one limit, by name. Belongs to one thread; used through `limits.strategies`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._windows: OrderedDict[str, _Window] = OrderedDict()
        """The least lately used first."""

    def __len__(self) -> int:
        return len(self._windows)

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Take so much if no more than `limit` is then taken within `expiry` seconds. Whether it was taken."""
        now = self._clock()
        window = self._window(key, now) or _Window(expiry)
        if window.amount + amount > limit:
            return False
        window.taken.append((now, amount))
        window.amount += amount
        self._windows[key] = window
        self._windows.move_to_end(key)
        self._tidy(now)
        return True

    def give_back(self, key: str, amount: int) -> None:
        """Undo the latest taking of just so much, unless it counts no more."""
        window = self._windows.get(key)
        if window is None:
            return
        for index in range(len(window.taken) - 1, -1, -1):
            if window.taken[index][1] == amount:
                del window.taken[index]
                window.amount -= amount
                break
        if not window.taken:
            del self._windows[key]

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:  # noqa: ARG002 -- the library's
        """When the oldest that still counts was taken, on the clock of this storage; and how much counts."""
        now = self._clock()
        window = self._window(key, now)
        return (now, 0) if window is None else (window.taken[0][0], window.amount)

    def seconds_until(self, key: str, limit: int, expiry: int, amount: int) -> float:
        """Until so much can be taken, if nobody else takes anything meanwhile; infinity where that is never."""
        if amount > limit:
            return float("inf")
        now = self._clock()
        window = self._window(key, now)
        excess = 0 if window is None else window.amount + amount - limit
        if window is not None and excess > 0:
            for at, taken in window.taken:
                excess -= taken
                if excess <= 0:
                    return at + expiry - now
        return 0.0

    def _window(self, key: str, now: float) -> _Window | None:
        """What a name has taken that still counts; None if nothing does."""
        window = self._windows.get(key)
        if window is None:
            return None
        window.forget(now)
        if window.taken:
            return window
        del self._windows[key]
        return None

    def _tidy(self, now: float) -> None:
        """Forget whose windows are over, and the oldest of too many. All windows of a limit have one length."""
        while self._windows:
            window = next(iter(self._windows.values()))
            is_over = window.taken[-1][0] + window.expiry_s <= now
            if not is_over and len(self._windows) <= MAX_NAMES:
                return
            self._windows.popitem(last=False)
