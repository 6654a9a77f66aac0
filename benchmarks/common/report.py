"""What a benchmark prints: machine, tables, goals, and one JSON document as its last line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime
from typing import Any

from benchmarks.common.machine import Activity, Machine

__all__ = ["Report", "table"]

_DIGITS = 6
"""Significant ones, in the JSON document."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Goal:
    claim: str
    value: float
    limit: float
    unit: str

    @property
    def is_met(self) -> bool:
        return self.value <= self.limit


class Report:
    """One run of one benchmark. Made before anything is started, since it looks whether the machine is quiet."""

    def __init__(self, benchmark: str, settings: Mapping[str, object]) -> None:
        """Print where it runs.

        Args:
            benchmark: the script's name.
            settings: what it was asked to do.
        """
        self._benchmark = benchmark
        self._settings = dict(settings)
        self._goals: list[_Goal] = []
        self._machine = Machine.this_one()
        self._before = Activity.now()
        machine = self._machine
        print(f"# {benchmark}: " + ", ".join(f"{name} {value}" for name, value in self._settings.items()))
        print(
            f"{machine.cpu}, {machine.cores} cores, {machine.system}, Python {machine.python}, torch {machine.torch}, "
            f"diffusers {machine.diffusers}, OMP_NUM_THREADS {machine.omp_num_threads or 'unset'}"
        )
        self._report_activity("before", self._before)

    def table(self, title: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table."""
        print(f"\n## {title}\n{table(headers, rows)}")

    def goal(self, claim: str, value: float, limit: float, unit: str = "") -> None:
        """Hold a figure against what was asked for.

        Args:
            claim: what is measured.
            value: what came out.
            limit: what it must not exceed.
            unit: of both, with the space that belongs in front of it.
        """
        self._goals.append(_Goal(claim=claim, value=value, limit=limit, unit=unit))

    def finish(self, results: Mapping[str, object]) -> None:
        """Print goals and the JSON document. Everything that the benchmark started has ended."""
        after = Activity.now()
        print()
        for goal in self._goals:
            verdict = "met" if goal.is_met else "NOT MET"
            print(f"goal: {goal.claim} <= {goal.limit:.3g}{goal.unit}: {goal.value:.3g}{goal.unit}, {verdict}")
        self._report_activity("after", after)
        document = {
            "benchmark": self._benchmark,
            "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": self._machine,
            "activity": {"before": self._before, "after": after},
            "is_quiet": self._before.is_quiet and after.is_quiet,
            "settings": self._settings,
            "results": results,
            "goals": [asdict(goal) | {"is_met": goal.is_met} for goal in self._goals],
        }
        print(json.dumps(_plain(document), ensure_ascii=False))

    def _report_activity(self, when: str, activity: Activity) -> None:
        busy = "" if activity.cores_busy is None else f", {activity.cores_busy:.1f} cores busy"
        print(f"load average {when}: {activity.load_average:.2f}{busy}")
        if not activity.is_quiet:
            print(f"WARNING: something else used this machine {when} the run; trust ratios, not seconds")


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up; the first one to the left, figures to the right."""
    columns = list(zip(headers, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    rule = [f":{'-' * (widths[0] - 1)}", *(f"{'-' * (width - 1)}:" for width in widths[1:])]
    lines = [
        [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        for row in (headers, *rows)
    ]
    lines.insert(1, rule)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever JSON can hold, once dataclasses are dictionaries
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
