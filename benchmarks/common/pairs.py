"""Whether A is faster than B: interleaved runs, and ratios taken pair by pair."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

__all__ = ["Summary", "interleave", "percentile", "ratios"]

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Summary:
    """Several measurements of one thing."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Summary:
        """Of at least one."""
        return cls(statistics.median(values), min(values), max(values))

    def __format__(self, spec: str) -> str:
        """The median, and the extremes behind it."""
        return f"{self.median:{spec}} ({self.min:{spec}}–{self.max:{spec}})"


def interleave(contenders: Mapping[str, Callable[[int], ResultT]], repeats: int, what: str) -> dict[str, list[ResultT]]:
    """Run A B A B ..., so that whatever slows the machine down for a while hits all of them.

    Args:
        contenders: name -> what to run; it is told the number of the round.
        repeats: rounds.
        what: for whoever waits.

    Returns:
        Name -> the results, one a round.
    """
    results: dict[str, list[ResultT]] = {name: [] for name in contenders}
    for number in range(repeats):
        for name, run in contenders.items():
            print(f"{what}, round {number + 1} of {repeats}: {name}", file=sys.stderr, flush=True)
            results[name].append(run(number))
    return results


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Summary:
    """Ours as a share of theirs, each with its neighbour in time; below 1 is less time."""
    return Summary.of([our / their for our, their in zip(ours, theirs, strict=True)])


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
