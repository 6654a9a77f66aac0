"""Which waiting job is next, where not all models fit into memory: models take turns, and no turn is without end.

Each change of model costs a load, and the end of a turn leaves an engine's places empty one by one. So jobs of a model
that is in memory go first, for a while: then nothing more begins that would keep the waiting model out.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Collection, Iterator
from typing import Final

from server.executors.pool import EnginePool
from server.executors.seat import Seat
from server.jobs.live_job import LiveJob

__all__ = ["LEAST_TURN_S", "LOADS_A_TURN", "ModelTurns", "turn_seconds"]

LEAST_TURN_S: Final = 10.0
LOADS_A_TURN: Final = 6
"""A turn lasts at least so many times as long as the load that ends it: a seventh of the time goes into loading."""
_MAX_LOOKED_AT: Final = 256
"""Jobs behind the first that may go before it: a queue of thousands is not searched at each end of a job."""


def turn_seconds(load_s: float) -> float:
    """Seconds for which the models that are there go before one that would make them leave.

    Args:
        load_s: seconds that the one takes to load.
    """
    return max(LEAST_TURN_S, LOADS_A_TURN * load_s)


class ModelTurns:
    """Belongs to the event loop's thread. Where all models fit, the first job is next, as it always was."""

    def __init__(self, pool: EnginePool, now: Callable[[], float] = time.monotonic) -> None:
        self._pool = pool
        self._now = now

    def next(self, waiting: Iterator[LiveJob]) -> tuple[LiveJob, Seat] | None:
        """The job that begins now, and where; None: none does.

        Args:
            waiting: in fair order.
        """
        head = next(waiting, None)
        if head is None:
            return None
        seat = self._place(head, lambda seat: seat.keeps_models_for(_model(head)))
        if seat is not None:
            return head, seat
        usable = self._pool.usable_seats
        changing = [seat for seat in usable if not seat.keeps_models_for(_model(head))]
        wanted = head.record.new.engine_class
        if wanted is not None:  # what other engines draw does not keep it waiting
            return self._first_without_change(waiting, [seat for seat in usable if not seat.is_of(wanted)])
        if not changing:
            return None  # it waits for room, and nothing overtakes it
        now = self._now()
        head.held_since = now if head.held_since is None else head.held_since
        if now - head.held_since < max(turn_seconds(seat.load_s(_model(head))) for seat in changing):
            return self._first_without_change(waiting, usable) or self._changed(head)
        kept_free = min(changing, key=lambda seat: seat.load)
        others = [seat for seat in usable if seat is not kept_free]
        return self._changed(head) or self._first_without_change(waiting, others)

    def _changed(self, head: LiveJob) -> tuple[LiveJob, Seat] | None:
        """Let the first job begin though a model must leave for it, where nothing draws with that."""
        seat = self._place(head, lambda seat: seat.has_memory_for(_model(head)))
        return None if seat is None else (head, seat)

    def _first_without_change(self, waiting: Iterator[LiveJob], seats: list[Seat]) -> tuple[LiveJob, Seat] | None:
        """The first of the others that can begin with the models that are there."""
        if not any(seat.num_free for seat in seats):
            return None
        for live in itertools.islice(waiting, _MAX_LOOKED_AT):
            found = self._place(live, functools.partial(_is_among, seats, _model(live)))
            if found is not None:
                return live, found
        return None

    def _place(self, live: LiveJob, admits: Callable[[Seat], bool]) -> Seat | None:
        record = live.record
        return self._pool.place_for(
            record.new.params,
            alone=record.is_last_attempt,
            lost_by=live.lost_by,
            admits=admits,
            engine_class=record.new.engine_class,
        )


def _is_among(seats: Collection[Seat], model: str, seat: Seat) -> bool:
    return seat in seats and seat.keeps_models_for(model)


def _model(live: LiveJob) -> str:
    return live.record.new.params.model
