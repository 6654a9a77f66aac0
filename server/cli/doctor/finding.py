"""The result of one check of the doctor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "Level", "gib"]

Level = Literal["ok", "warn", "FAIL"]
"""`warn`: works, but not as well or as safely as it could; `FAIL`: does not work like this."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found, and what to do about it."""

    check: str
    """What was looked at, in a word or two."""
    level: Level
    found: str
    remedy: str | None = None
    """None where nothing need be done."""

    def as_text(self) -> str:
        """A line, and one more for the remedy."""
        line = f"{self.level:4}  {self.check:10}  {self.found}"
        return line if self.remedy is None else f"{line}\n{'':18}-> {self.remedy}"


def gib(num_bytes: float) -> str:
    """A number of bytes, for people."""
    return f"{num_bytes / 2**30:.1f} GiB"
