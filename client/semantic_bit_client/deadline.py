"""The deadline of a caller's `timeout_s`."""

from __future__ import annotations

import time
from collections.abc import Callable

from semantic_bit_client.errors import TookTooLong

__all__ = ["Deadline"]


class Deadline:
    """The end of a caller's timeout, counted from when this is made."""

    def __init__(self, timeout_s: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout_s = float("inf") if timeout_s is None else timeout_s
        self._clock = clock
        self._began = clock()

    @property
    def rest_s(self) -> float:
        """Seconds that are left; infinite without a limit, 0 when it is over."""
        return max(0.0, self._began + self._timeout_s - self._clock())

    def left_s(self, job_id: str | None = None) -> float:
        """Seconds that are left; infinite without a limit.

        Raises:
            TookTooLong: none are.
        """
        left_s = self.rest_s
        if left_s <= 0:
            goes_on = "; the job goes on" if job_id else ""
            raise TookTooLong(f"not finished within {self._timeout_s:.3g} s{goes_on}", job_id=job_id)
        return left_s
