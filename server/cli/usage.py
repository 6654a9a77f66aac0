"""The command `usage`: usage and cost as a table, JSON or CSV."""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from server.cli.errors import CommandError
from server.cli.output import as_json, as_table, say, say_note
from server.cli.server_client import any_server, command_settings
from server.store.usage_table import thirty_days_before

__all__ = ["show_usage"]

_COLUMNS: Final = (
    "day",
    "key_id",
    "user",
    "done",
    "failed",
    "cancelled",
    "dead",
    "images",
    "work_units",
    "engine_s",
    "price",
)
_NUM_NAMES: Final = 3
"""Columns that are not numbers."""
_FORMULA: Final = re.compile(r"[\s\u200b\ufeff]*[-=+@\u2212＝＋－＠]")
"""What a cell must not begin with: spreadsheets compute such text, whoever chose it, after spaces too."""
_STEERING: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""What ends a line, or a terminal obeys, or turns the direction of what follows."""


def show_usage(arguments: argparse.Namespace) -> None:
    """Print what was drawn."""
    last_day = arguments.last_day or datetime.now(UTC).date()
    first_day = arguments.first_day or thirty_days_before(last_day)
    if first_day > last_day:
        raise CommandError("--from must not be after --to")
    asked = [("from", first_day.isoformat()), ("to", last_day.isoformat())]
    asked += [("group_by", group) for group in arguments.by or ("day", "key", "user")]
    asked += [
        (name, value) for name, value in (("key_id", arguments.key), ("user", arguments.user)) if value is not None
    ]
    with any_server(command_settings()) as server:
        usage = server.ask("GET", "/v1/usage", params=asked)
    if arguments.json:
        say(as_json(usage))
    elif arguments.csv:
        csv.writer(sys.stdout, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(_csv_lines(usage))
    elif usage["rows"]:
        total = {**usage["total"], "day": "total", "key_id": None, "user": None}
        lines = _with_equal_decimals([_cells(row) for row in [*usage["rows"], total]])
        say(as_table([[name.upper() for name in _COLUMNS], *lines], numeric=range(_NUM_NAMES, len(_COLUMNS))))
    else:
        say_note("no usage on these days")


def _csv_lines(usage: Mapping[str, Any]) -> Iterator[list[str]]:
    yield list(_COLUMNS)
    for row in usage["rows"]:
        yield [_harmless(cell) for cell in _cells(row)]


def _cells(row: Mapping[str, Any]) -> list[str]:
    values = {**row, **row["jobs"]}
    return ["" if values[name] is None else str(values[name]) for name in _COLUMNS]


def _with_equal_decimals(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """The same numbers, with as many decimals in a column as its longest has."""
    columns = [list(column) for column in zip(*rows, strict=True)]
    for column in columns[_NUM_NAMES:]:
        numbers = [Decimal(cell) for cell in column]
        decimals = max(0, *(-int(number.as_tuple().exponent) for number in numbers))
        column[:] = [f"{number:.{decimals}f}" for number in numbers]
    return [list(row) for row in zip(*columns, strict=True)]


def _harmless(cell: str) -> str:
    """Text that a terminal shows and does not obey, and that a spreadsheet does not compute: with an apostrophe, which
    it knows to hide.
    """
    shown = _STEERING.sub(lambda found: ascii(found[0])[1:-1], cell)
    return f"'{shown}" if _FORMULA.match(shown) else shown
