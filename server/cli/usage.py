"""The command `usage`: what was drawn for whom, as a table, as JSON, or as CSV for a spreadsheet."""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import re
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from server.cli.errors import UNREACHABLE, CommandError
from server.cli.jobs import as_table
from server.cli.running_server import running_server
from server.cli.stopped_server import store_opened
from server.config import StartError, load_settings
from server.jobs.store_errors import StoreError
from server.jobs.usage import UsageQuestion, thirty_days_before
from server.usage_schemas import UsageView

__all__ = ["tell_usage"]

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
_FORMULA: Final = re.compile(r"[\s\u200b\ufeff]*[-=+@\u2212＝＋－＠]")
"""What a cell must not begin with: spreadsheets compute such text, whoever chose it, after spaces too."""
_STEERING: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""What ends a line, or a terminal obeys, or turns the direction of what follows."""


def tell_usage(arguments: argparse.Namespace) -> None:
    """Print what was drawn."""
    last_day = arguments.last_day or datetime.now(UTC).date()
    question = UsageQuestion(
        first_day=arguments.first_day or thirty_days_before(last_day),
        last_day=last_day,
        key_id=arguments.key,
        user=arguments.user,
        group_by=tuple(dict.fromkeys(arguments.by or ("day", "key", "user"))),
    )
    if question.first_day > question.last_day:
        raise CommandError("--from must not be after --to")
    try:
        folder = load_settings().server_folder
    except StartError as error:
        raise CommandError(str(error)) from None
    usage = _usage(folder, question)
    if arguments.json:
        print(json.dumps(usage, indent=2))  # noqa: T201 -- a command's answer
    elif arguments.csv:
        csv.writer(sys.stdout, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(_csv_lines(usage))
    elif usage["rows"]:
        total = {**usage["total"], "day": "total", "key_id": None, "user": None}
        lines = [_cells(row) for row in [*usage["rows"], total]]
        print(as_table([[name.upper() for name in _COLUMNS], *lines]))  # noqa: T201 -- a command's answer
    else:
        print("nothing was drawn on these days", file=sys.stderr)  # noqa: T201 -- for whoever typed the command


def _usage(folder: Path, question: UsageQuestion) -> dict[str, Any]:
    """The JSON of `GET /v1/usage`, from the server or, while none runs, from its store."""
    server = running_server(folder)
    if server is not None:
        asked = [("from", question.first_day), ("to", question.last_day), ("user", question.user)]
        asked += [("key_id", question.key_id), *(("group_by", group) for group in question.group_by)]
        return server.ask("GET", f"/v1/usage?{urlencode([pair for pair in asked if pair[1] is not None])}")
    if not folder.is_dir():
        raise CommandError(f"no server has ever run with its data in {folder}; is DATA_DIR right?", UNREACHABLE)
    with store_opened(folder) as (store, runner), _told():
        return UsageView.of(question, runner.run(store.usage(question))).model_dump(mode="json")


def _csv_lines(usage: Mapping[str, Any]) -> Iterator[list[str]]:
    yield list(_COLUMNS)
    for row in usage["rows"]:
        yield [_harmless(cell) for cell in _cells(row)]


def _cells(row: Mapping[str, Any]) -> list[str]:
    values = {**row, **row["jobs"]}
    return ["" if values[name] is None else str(values[name]) for name in _COLUMNS]


def _harmless(cell: str) -> str:
    """Text that a terminal shows and does not obey, and that a spreadsheet does not compute: with an apostrophe, which
    it knows to hide.
    """
    shown = _STEERING.sub(lambda found: ascii(found[0])[1:-1], cell)
    return f"'{shown}" if _FORMULA.match(shown) else shown


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        raise CommandError(str(error)) from None
