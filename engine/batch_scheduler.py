"""Which states take part in the next step. (Noise schedules are in `journey.py`.)"""

from __future__ import annotations

from collections.abc import Sequence

from engine.batch import Batch
from engine.state import BatchKey, DenoisingState

__all__ = ["BatchScheduler"]


class BatchScheduler:
    """Latent sizes take turns; within a size the oldest go first, as many as the row limit holds.

    The row limit of a size falls when a call of it did not fit into memory, and stays there.
    """

    def __init__(self, *, rows_per_call: int, is_reproducible: bool) -> None:
        self._rows_per_call = rows_per_call
        self._is_reproducible = is_reproducible
        self._row_limits: dict[BatchKey, int] = {}
        self._last_turn: dict[BatchKey, int] = {}
        self._turn = 0

    def row_limit(self, key: BatchKey) -> int:
        """Model rows that one call of this latent size may have."""
        return self._row_limits.get(key, self._rows_per_call)

    def next_batch(self, running: Sequence[DenoisingState]) -> Batch:
        """Choose who takes the next step.

        Args:
            running: at least one state, oldest first, each with its prompt encoded.
        """
        self._turn += 1
        keys = list(dict.fromkeys(state.batch_key for state in running))
        key = min(keys, key=lambda key: self._last_turn.get(key, 0))
        # Sizes that nobody draws any more are forgotten: a server lives for years and clients choose the sizes.
        self._last_turn = {key: self._last_turn.get(key, 0) for key in keys} | {key: self._turn}
        limit = self.row_limit(key)
        chosen: list[DenoisingState] = []
        rows = 0
        for state in running:
            if state.batch_key == key and (rows + state.num_rows <= limit or not chosen):
                chosen.append(state)
                rows += state.num_rows
        # A call's shape decides the last bits of its results: one shape per size keeps bytes the same in any company.
        return Batch.of(chosen, limit if self._is_reproducible else rows)

    def did_not_fit(self, batch: Batch) -> bool:
        """Learn from a call that ran out of memory: next time the newest state waits, or the padding goes.

        Returns:
            Whether a smaller call is left to try.
        """
        states = batch.states
        used = sum(state.num_rows for state in states)
        # `states` is oldest first within guided and unguided; whichever leaves, the limit has room for one less.
        smaller = used - states[-1].num_rows if len(states) > 1 else used
        if smaller >= batch.num_rows:
            return False
        self._row_limits[states[0].batch_key] = smaller
        return True
