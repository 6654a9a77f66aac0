"""Pacing: keeps the host at most one step ahead of the device."""

from __future__ import annotations

import torch

__all__ = ["Pacer"]


class Pacer:
    """Waits for the step before last, so that a GPU always has one step queued and a cancel never waits for many.

    Without it the host would launch all steps of a picture at once: nothing in the loop waits for the device. On a CPU
    it does nothing.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._last: torch.cuda.Event | None = None
        self._last_but_one: torch.cuda.Event | None = None

    def wait(self) -> None:
        """Return when at most one step is still under way on the device."""
        if self._last_but_one is not None:
            self._last_but_one.synchronize()

    def mark(self) -> None:
        """Say that a step has been launched."""
        if self._device.type == "cuda":
            # Blocking: a host that spins would take a core from whatever writes files and answers requests.
            self._last_but_one, self._last = self._last, torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call] # torch has no types for it
            # Without it: the current device's stream, which with DEVICE=cuda:1 is another GPU's.
            self._last.record(torch.cuda.current_stream(self._device))
