"""How long a run may take, how far it is, and what follows from that. Runs stop by time, since leases do.

Time is the wall's where a GPU works. On a CPU it is the time that the processor gave us, all threads together: a run
beside other work, or one that is paused, then loses speed but none of its schedule.
"""

import math
import time
from dataclasses import dataclass, field

import torch


def _now_s() -> float:
    return time.monotonic() if torch.cuda.is_available() else time.process_time()


@dataclass(slots=True)
class RunClock:
    """A budget of minutes. `spent_s` is carried from checkpoint to checkpoint."""

    minutes: float
    """Of the whole run."""
    call_minutes: float = math.inf
    """Of this call; a run may be made in several."""
    spent_s: float = 0.0
    _started: float = field(default_factory=_now_s)
    _reported: float = field(default_factory=time.monotonic)

    @property
    def elapsed_s(self) -> float:
        """Seconds of training, those before a resume included."""
        return self.spent_s + _now_s() - self._started

    @property
    def progress(self) -> float:
        """From 0 to 1."""
        return min(self.elapsed_s / (60 * self.minutes), 1.0) if self.minutes > 0 else 1.0

    @property
    def is_over(self) -> bool:
        """Whether the time of the run or of this call is up."""
        return self.progress >= 1.0 or self.elapsed_s - self.spent_s >= 60 * self.call_minutes

    def learning_rate(self, peak: float, warm_up: float = 0.02) -> float:
        """A linear rise, then a cosine down to a hundredth."""
        if self.progress < warm_up:
            return peak * max(self.progress / warm_up, 0.02)
        along = (self.progress - warm_up) / (1 - warm_up)
        return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * along)))

    def is_due(self, every_s: float) -> bool:
        """Whether so many seconds of the wall's time have passed since this last said yes."""
        if time.monotonic() - self._reported < every_s:
            return False
        self._reported = time.monotonic()
        return True
