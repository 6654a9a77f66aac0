"""How fast pictures are drawn here: seconds a work unit, learned from the steps that engines report."""

from __future__ import annotations

__all__ = ["Pace"]

_HALF_LIFE = 4.0
"""Work units after which a measurement counts half: a few pictures, so that a change of load is soon learned."""


class Pace:
    """Seconds that a work unit takes while anything is drawn, recent work counting most.

    Time counts from the first job that runs until none does, so neighbours that share a batch make the pace faster, as
    they should.
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._work_units = 0.0
        self._counted_until: float | None = None

    @property
    def seconds_per_work_unit(self) -> float | None:
        """None until any work was seen."""
        return self._seconds / self._work_units if self._work_units else None

    def begin(self, now: float) -> None:
        """Something runs from now on, if nothing did."""
        if self._counted_until is None:
            self._counted_until = now

    def work_done(self, work_units: float, now: float) -> None:
        """So much has been drawn since the last call."""
        elapsed = 0.0 if self._counted_until is None else now - self._counted_until
        self._counted_until = now
        kept = 0.5 ** (work_units / _HALF_LIFE)
        self._seconds = self._seconds * kept + elapsed
        self._work_units = self._work_units * kept + work_units

    def pause(self, now: float) -> None:
        """Nothing runs any more. What the last job took after its last step (decoding, the file) is counted."""
        self.work_done(0.0, now)
        self._counted_until = None
