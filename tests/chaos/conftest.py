"""What every chaos test has: how hard to try, and a table of what was measured, printed at the end."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

_TABLE = pytest.StashKey[list[tuple[str, str, str]]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TABLE] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """A line a measurement: what, how much, and how much was wanted."""
    rows = config.stash[_TABLE]
    if rows:
        terminalreporter.section("chaos", sep="-")
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        for line, figure, goal in rows:
            terminalreporter.write_line(f"{line:<{widths[0]}}  {figure:>{widths[1]}}  ({goal})".replace("  ()", ""))


@pytest.fixture(scope="session")
def is_long() -> bool:
    """Whether there is time: `make chaos` says so. Else the tests run short, beside other programs."""
    return os.environ.get("CHAOS") == "long"


@pytest.fixture(scope="session")
def rounds(is_long) -> Callable[[int, int], int]:
    """How often to try: `rounds(10, 200)`."""
    return lambda short, long: long if is_long else short


@pytest.fixture(scope="session")
def report(pytestconfig: pytest.Config) -> Callable[[str, object, str], None]:
    """Put a line into the table: `report("kill -9 of the engine: next step, p95", "0.61 s", "<= 3 s")`."""

    def add(line: str, figure: object, goal: str = "") -> None:
        pytestconfig.stash[_TABLE].append((line, str(figure), goal))

    return add
