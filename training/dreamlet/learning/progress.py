"""Progress output: step, loss, samples per second, remaining time."""

import logging
import time
from collections.abc import Callable

LOG = logging.getLogger("dreamlet")


def duration(seconds: float) -> str:
    """For people: "3 h 20 min", "4 min", "12 s"."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"


class Progress:
    """Counts steps and writes a line about them now and then."""

    def __init__(
        self, name: str, batch_size: int, every_s: float = 60.0, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._name = name
        self._batch_size = batch_size
        self._every_s = every_s
        self._now = now
        self._since = now()
        self._steps = 0
        self._loss = 0.0

    def count(self, loss: float) -> None:
        """One step more."""
        self._steps += 1
        self._loss += loss

    def report_if_due(self, step: int, last_step: int) -> str | None:
        """Log a line once the time has come; returns it."""
        passed = self._now() - self._since
        if passed < self._every_s or not self._steps:
            return None
        left = duration((last_step - step) * passed / self._steps)
        line = (
            f"{self._name}: step {step:,} of {last_step:,}, loss {self._loss / self._steps:.4f}, "
            f"{self._steps * self._batch_size / passed:.1f} samples/s, {left} left"
        )
        LOG.info(line)
        self._since, self._steps, self._loss = self._now(), 0, 0.0
        return line
