"""Several models in one process: which are in memory, and which make room for another. Knows no model and no device."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from engine.errors import DoesNotFitError, EngineError

__all__ = ["Shelf"]

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Shelf(Generic[T]):
    """What draws with each model, as many as the budget holds; those unused for longest leave first.

    `borrow` belongs to one thread, and loads there while others go on drawing. The rest may be called from any.
    """

    def __init__(
        self,
        load: Callable[[str], T],
        sizes: Mapping[str, int],
        *,
        budget_bytes: int | None = None,
        forget: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Make an empty one.

        Args:
            load: reads a model into memory.
            sizes: name -> bytes that it takes there.
            budget_bytes: for all of them together; None: no limit.
            forget: called with a model that has left, to give its memory back.
        """
        self._load = load
        self._sizes = sizes
        self._budget_bytes = budget_bytes
        self._forget = forget
        self.on_change: Callable[[], None] = lambda: None
        """Called, on the thread that borrows, after a model has come or left."""
        self._load_seconds: dict[str, float] = {}
        self._resident: OrderedDict[str, T] = OrderedDict()
        """The one used last stands last."""
        self._users: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._is_closed = False

    @property
    def resident(self) -> Mapping[str, T]:
        """What is in memory now."""
        with self._changed:
            return dict(self._resident)

    @property
    def sizes(self) -> Mapping[str, int]:
        """Name -> bytes in memory, of all that can be loaded; empty where there is only one."""
        return self._sizes

    @property
    def budget_bytes(self) -> int | None:
        """For all that are in memory together; None: no limit."""
        return self._budget_bytes

    @property
    def load_seconds(self) -> Mapping[str, float]:
        """How long each took to load last, of those that were loaded here."""
        with self._changed:
            return dict(self._load_seconds)

    def put(self, name: str, value: T) -> None:
        """Take in what was loaded elsewhere."""
        with self._changed:
            self._resident[name] = value

    def borrow(self, name: str) -> T:
        """What draws with a model, for one job; it stays in memory until `give_back`.

        Waits until the jobs of other models have ended, where theirs must make room.

        Raises:
            DoesNotFitError: it does not fit into the budget even alone.
            EngineError: the server is shutting down, or the model cannot be loaded.
        """
        self._make_room_for(name)
        with self._changed:
            value = self._resident.get(name)
        is_new = value is None
        began = time.perf_counter()
        if value is None:
            value = self._load(name)
        with self._changed:
            if is_new:
                self._load_seconds[name] = time.perf_counter() - began
            self._resident[name] = value
            self._resident.move_to_end(name)
            self._users[name] += 1
        if is_new:
            self.on_change()
        return value

    def give_back(self, name: str) -> None:
        """A job has ended."""
        with self._changed:
            self._users -= Counter([name])
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody wait any more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _make_room_for(self, name: str) -> None:
        budget, needed = self._budget_bytes, self._sizes.get(name, 0)
        if budget is None:
            return
        if needed > budget:
            raise DoesNotFitError(
                f"the model {name} needs {needed >> 20} MiB, more than DEVICE_MEMORY_BUDGET allows ({budget >> 20} MiB)"
            )
        while (victim := self._next_victim(name, budget - needed)) is not None:
            logger.info("the model %s leaves memory for %s", victim, name)
            self._forget(victim)
            self.on_change()

    def _next_victim(self, name: str, room: int) -> str | None:
        """Take out a model that nobody uses, where there is no room for another; None: there is room."""
        with self._changed:
            while not self._is_closed:
                if name in self._resident or sum(self._sizes.get(other, 0) for other in self._resident) <= room:
                    return None
                victim = next((other for other in self._resident if not self._users[other]), None)
                if victim is not None:
                    del self._resident[victim]
                    return victim
                self._changed.wait()
        raise EngineError("the engine is shutting down")
