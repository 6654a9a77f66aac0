"""What the API has of each key in memory: its options, and the calls of it that wait for pictures right now."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from server.store.options_table import Option

__all__ = ["Call", "Session", "Sessions"]

_MAX_SESSIONS: Final = 1000
"""Keys that are in memory; those that were used longest ago leave first, and their options are read anew."""


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

    options: Mapping[str, Option] | None = None
    """Those that were set, as the store has them; None: not read yet."""
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
    """Of all keys. Belongs to the event loop's thread."""

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
