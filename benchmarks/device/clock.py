"""How many seconds work takes on a device: by its own events where it has them, else by the host's clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise

import torch

from benchmarks.common.pairs import Summary

__all__ = ["Marks", "seconds_per_call"]


class Marks:
    """Points in the work that is handed to a device, and the seconds between them.

    On a GPU nothing waits for a mark: what is measured is the device's own pace, with the gaps in which it has nothing
    to do because the host is slower.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._events: list[torch.cuda.Event] = []
        self._instants: list[float] = []

    def mark(self) -> None:
        """Set the next point."""
        if self._device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call] # torch has no types for it
            event.record(torch.cuda.current_stream(self._device))
            self._events.append(event)
        else:
            self._instants.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Wait for the device; then from each point to the next."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            return [earlier.elapsed_time(later) / 1000 for earlier, later in pairwise(self._events)]
        return [later - earlier for earlier, later in pairwise(self._instants)]


def seconds_per_call(device: torch.device, call: Callable[[], object], *, calls: int) -> Summary:
    """What one call takes when they follow each other without a pause; two untimed ones come first."""
    for _ in range(2):  # the first chooses kernels, the second finds the memory that they need
        call()
    marks = Marks(device)
    marks.mark()
    for _ in range(calls):
        call()
        marks.mark()
    return Summary.of(marks.seconds())
