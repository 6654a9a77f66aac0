"""The progress bar of a job: one line on a terminal."""

from __future__ import annotations

import os
import sys
from typing import Final, TextIO

from semantic_bit_client.models import Progress

__all__ = ["ProgressBar", "line_of"]

_BAR: Final = 24
"""Characters."""
_CLEAR: Final = "\r\x1b[K"
"""To the start of the line, and wipe it."""


def line_of(progress: Progress) -> str:
    """What the line says: place in the queue or steps taken, and when it should be done."""
    if progress.status == "queued":
        place = "next" if not progress.queue_position else f"{progress.queue_position} ahead"
        return f"waiting, {place}{_eta(progress.eta_s)}"
    if progress.status == "running":
        filled = _BAR * progress.step // max(progress.steps, 1)
        bar = "#" * filled + "-" * (_BAR - filled)
        return f"[{bar}] {progress.step}/{progress.steps}{_eta(progress.eta_s)}"
    return progress.status


def _eta(eta_s: float | None) -> str:
    if eta_s is None:
        return ""
    return f", about {eta_s:.0f} s" if eta_s < 90 else f", about {eta_s / 60:.0f} min"


class ProgressBar:
    """Keeps one line of a terminal up to date; silent where there is no terminal."""

    def __init__(self, terminal: TextIO = sys.stderr) -> None:
        self._terminal = terminal
        self._is_shown = terminal.isatty() and os.environ.get("TERM") != "dumb"

    def show(self, progress: Progress) -> None:
        """Write the line anew."""
        self._write(_CLEAR + line_of(progress))

    def clear(self) -> None:
        """Leave an empty line behind."""
        self._write(_CLEAR)

    def _write(self, text: str) -> None:
        if self._is_shown:
            self._terminal.write(text)
            self._terminal.flush()
