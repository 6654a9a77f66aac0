"""Who has to go where a listener holds as many connections as it may. (What each may do: `connections.py`.)"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final, Protocol

__all__ = ["Connections", "Countable"]

_SPARED_S: Final = 2.0
"""Nobody goes who has not kept up for less than this: a large picture on its way."""
_HANDSHAKES_SHARE: Final = 1 / 4
"""Of all connections. As many handshakes as this may go on at the cost of idle connections, so that whoever comes while
these fill the house gets in; and no more, so that a flood of beginnings does not drive them all out."""


class Countable(Protocol):
    """A connection, as far as it matters for counting."""

    @property
    def has_unread(self) -> bool:
        """Whether there is something that the client should have taken and has not."""

    def hang_up(self) -> None:
        """Close it without waiting for the client."""


class Connections:
    """The connections of one listener, counted from the moment in which they are accepted. Belongs to the event loop.

    Where there are too many, one goes whose client asks for nothing: the one that has been idle for longest; if there
    is none, a TLS handshake that takes its time, or the one whose client has for longest not kept up with reading its
    answer. So nobody can keep others out with connections that cost him nothing.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._handshakes: dict[Countable, asyncio.Task[None]] = {}
        self._idle: dict[Countable, None] = {}
        self._busy: set[Countable] = set()
        self._slow: dict[Countable, float] = {}
        """Those of the busy ones that have not kept up -> since when."""

    def __len__(self) -> int:
        return len(self._handshakes) + len(self._idle) + len(self._busy)

    def accepted(self, connection: Countable, handshake: asyncio.Task[None]) -> None:
        """Count a new one that begins with a TLS handshake."""
        self._handshakes[connection] = handshake
        self._make_room(connection)

    def opened(self, connection: Countable) -> bool:
        """Count a new one that can ask now. False if it is one too many, because all others have a request in hand."""
        self._handshakes.pop(connection, None)
        self._idle[connection] = None
        return self._make_room(connection)

    def busy(self, connection: Countable) -> None:
        """It has sent a request, which is to be answered."""
        self._idle.pop(connection, None)
        self._busy.add(connection)

    def slow(self, connection: Countable) -> None:
        """It does not keep up with reading, until all its answers are read: to catch its breath does not help."""
        if connection in self._busy:
            self._slow.setdefault(connection, self._clock())

    def idle(self, connection: Countable) -> None:
        """All its requests are answered, and the answers are read."""
        if connection in self._busy:
            self.closed(connection)
            self._idle[connection] = None

    def closed(self, connection: Countable) -> None:
        """It counts no more."""
        self._handshakes.pop(connection, None)
        self._idle.pop(connection, None)
        self._busy.discard(connection)
        self._slow.pop(connection, None)

    def _make_room(self, newest: Countable) -> bool:
        while len(self) > self._most:
            leaving = self._least_needed(newest)
            if leaving is None:
                return False
            handshake = self._handshakes.get(leaving)
            self.closed(leaving)
            if handshake is None:
                leaving.hang_up()
            else:
                handshake.cancel()
        return True

    def _least_needed(self, newest: Countable) -> Countable | None:
        handshake = _first_but(newest, self._handshakes)
        if handshake is not None and len(self._handshakes) > self._most * _HANDSHAKES_SHARE:
            return handshake
        return _first_but(newest, self._idle) or handshake or self._slowest()

    def _slowest(self) -> Countable | None:
        while self._slow:
            connection, since = next(iter(self._slow.items()))
            if connection.has_unread:
                return connection if self._clock() - since >= _SPARED_S else None
            del self._slow[connection]  # a stream of events, say, which was slow once
        return None


def _first_but(newest: Countable, connections: Iterable[Countable]) -> Countable | None:
    return next((connection for connection in connections if connection is not newest), None)
