"""What the API remembers of each key: its options, and the calls of it that wait for pictures right now."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["Call", "Session", "Sessions"]

_MAX_SESSIONS: Final = 1000
"""Keys whose options are remembered; those that were used longest ago are forgotten first."""


@dataclass(slots=True, kw_only=True, eq=False)
class Call:
    """A call that waits for its pictures."""

    job_id: str
    task_id: str | None
    """What `/internal/progress` asks for."""
    num_batches: int
    """`n_iter`."""
    batch_size: int
    timestamp: str
    is_interrupted: bool = False


@dataclass(slots=True, kw_only=True, eq=False)
class Session:
    """Of one key."""

    options: dict[str, Any] = field(default_factory=dict)
    """Those that were set."""
    calls: list[Call] = field(default_factory=list)
    """The oldest first."""

    @contextlib.contextmanager
    def waiting(self, call: Call) -> Iterator[Call]:
        """Count a call as waiting."""
        self.calls.append(call)
        try:
            yield call
        finally:
            self.calls.remove(call)


class Sessions:
    """Of all keys, in memory: a restart forgets them. Belongs to the event loop's thread."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def of(self, key_id: str) -> Session:
        """Of one key."""
        session = self._sessions.setdefault(key_id, Session())
        self._sessions.move_to_end(key_id)
        if len(self._sessions) > _MAX_SESSIONS:
            oldest = next(iter(self._sessions))
            if not self._sessions[oldest].calls:
                del self._sessions[oldest]
        return session
