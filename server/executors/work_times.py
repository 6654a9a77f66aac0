"""Measured durations of the engine's work items: recent medians, for estimates and the watchdog. No torch."""

from __future__ import annotations

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from statistics import median
from typing import Final, NamedTuple

from server.executors.messages import WorkDone

__all__ = ["WorkTimes"]

_WINDOW: Final = 15
"""Items that a median looks at: half a picture of the default request, so that a change of load is soon learned."""
_MAX_SHAPES: Final = 64
"""Shapes that are remembered, the latest seen: a server lives for years and clients choose the sizes."""


class _Shape(NamedTuple):
    backend: str
    kind: str
    rows: int
    height: int
    width: int
    model: str = ""

    @property
    def load(self) -> int:
        """Pixels of all rows; of text, whose size is 0, the rows."""
        return self.rows * max(1, self.height * self.width)


class WorkTimes:
    """Seconds of the latest work items of every shape, backend by backend. Belongs to the event loop's thread.

    What is asked for is answered for the backend that worked last.
    """

    def __init__(self) -> None:
        self.last_at: float | None = None
        """When the latest item ended, on `time.monotonic`; None before the first."""
        self.on_item: Callable[[WorkDone], None] | None = None
        """Called with every item that has ended."""
        self._seconds: OrderedDict[_Shape, deque[float]] = OrderedDict()
        self._backend = ""
        """Of the latest item: the same shape takes another time on another backend."""

    def observe(self, item: WorkDone) -> None:
        """Learn from a work item that has ended."""
        self._backend = item.backend
        shape = _Shape(item.backend, item.kind, item.rows, item.height, item.width, item.model)
        self._seconds.setdefault(shape, deque(maxlen=_WINDOW)).append(item.seconds)
        self._seconds.move_to_end(shape)
        if len(self._seconds) > _MAX_SHAPES:
            self._seconds.popitem(last=False)
        self.last_at = time.monotonic()
        if self.on_item is not None:
            self.on_item(item)

    def median_s(self, kind: str, rows: int, height: int, width: int, model: str = "") -> float | None:
        """Seconds that such an item takes: the recent median, so that one slow item does not matter.

        A shape that was never seen is scaled from the one of its kind whose rows x pixels are nearest: of its model, or
        of any where nothing of that was seen.

        Args:
            kind: of work, as `engine.events.WorkKind`.
            rows: model rows in the call, padding included.
            height: pixels; 0 for text.
            width: pixels; 0 for text.
            model: as `GenerationParams.model`.

        Returns:
            None while nothing of this kind was seen.
        """
        shape = _Shape(self._backend, kind, rows, height, width, model)
        if shape in self._seconds:
            return median(self._seconds[shape])
        known = [other for other in self._seconds if other[:2] == (self._backend, kind)]
        known = [other for other in known if other.model == model] or known
        if not known:
            return None
        nearest = min(known, key=lambda other: abs(math.log(other.load / shape.load)))
        return median(self._seconds[nearest]) * shape.load / nearest.load

    def step_rows(self, height: int, width: int, *, model: str = "", otherwise: int) -> int:
        """Model rows, padding included, that the calls of a size have now.

        An engine that ran out of memory takes fewer than it began with.

        Args:
            height: pixels.
            width: pixels.
            model: as `GenerationParams.model`.
            otherwise: where no step of this size was seen.
        """
        steps = (shape for shape in reversed(self._seconds) if shape[:2] == (self._backend, "step"))
        return next((shape.rows for shape in steps if shape[3:] == (height, width, model)), otherwise)

    def longest_median_s(self) -> float | None:
        """The median of the shape that takes longest; None while nothing was seen."""
        own = (seconds for shape, seconds in self._seconds.items() if shape.backend == self._backend)
        return max((median(seconds) for seconds in own), default=None)
