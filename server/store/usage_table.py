"""Usage sums by day, key and user: a table that outlives the jobs, written in the transaction that ends each.

It tells of ends, and an end is never taken back: a dead job that the operator lets run again ends twice.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Final, Literal

import msgspec

from server.store.price import NANO
from server.store.record import Outcome

__all__ = ["Grouping", "Usage", "UsageQuestion", "count_end", "sums", "thirty_days_before"]

Grouping = Literal["day", "key", "user"]

_NANOS: Final = 10**9
_A_MONTH: Final = timedelta(days=29)
_COLUMNS: Final[dict[Grouping, str]] = {"day": "day", "key": "key_id", "user": "user"}
_COUNTS: Final = [f"ifnull(sum({name}), 0) AS {name}" for name in ("done", "failed", "cancelled", "dead", "images")]


class UsageQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """Which days and owners are asked about."""

    first_day: date
    """UTC."""
    last_day: date
    """UTC; included."""
    key_id: str | None = None
    """None: every key's."""
    user: str | None = None
    """None: every user's."""
    group_by: Collection[Grouping] = ()
    """What gets a row of its own; nothing: all in one row."""
    max_rows: int | None = None
    """Rows that are read at most. None: all."""


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What was drawn: jobs by how they ended, and what they cost."""

    day: date | None
    """UTC; None where days are added up."""
    key_id: str | None
    """None where keys are added up."""
    user: str | None
    """None where users are added up, and for jobs on nobody's behalf."""
    done: int
    failed: int
    cancelled: int
    dead: int
    images: int
    work_units: float
    """Of the jobs that are done: those are charged."""
    engine_s: float
    """Seconds of the engine, spent on all of them."""
    price: Decimal
    """As it was when each of them ended."""


def thirty_days_before(last_day: date) -> date:
    """The first of the 30 days that end with this one: the default of a usage query."""
    return max(last_day, date.min + _A_MONTH) - _A_MONTH


def count_end(connection: sqlite3.Connection, key_id: str, user: str | None, outcome: Outcome) -> None:
    """Add a job that has just ended. Within the same transaction."""
    connection.execute(
        "INSERT INTO usage (day, key_id, user, done, failed, cancelled, dead, images,"
        " work_units, engine_s, price_nanos) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (day, key_id, ifnull(user, 0)) DO UPDATE SET done = done + excluded.done,"
        " failed = failed + excluded.failed, cancelled = cancelled + excluded.cancelled, dead = dead + excluded.dead,"
        " images = images + excluded.images, work_units = work_units + excluded.work_units,"
        " engine_s = engine_s + excluded.engine_s, price_nanos = price_nanos + excluded.price_nanos",
        (
            datetime.fromtimestamp(outcome.finished_at, UTC).date().isoformat(),
            key_id,
            user,
            outcome.status == "done",
            outcome.status == "failed",
            outcome.status == "cancelled",
            outcome.status == "dead",
            len(outcome.images),
            outcome.work_units,
            outcome.engine_s,
            int(outcome.price / NANO),
        ),
    )


def sums(connection: sqlite3.Connection, question: UsageQuestion) -> list[Usage]:
    """Add up what was asked for, in the order of the groups. Without groups: one row, of zeros if there is nothing."""
    groups = [_COLUMNS[group] for group in dict.fromkeys(question.group_by)]
    chosen = [column if column in groups else f"NULL AS {column}" for column in _COLUMNS.values()]
    # Column names are ours; every value from outside is bound. Prices are added in two parts: no sum overflows.
    statement = (
        f"SELECT {', '.join([*chosen, *_COUNTS])}, total(work_units) AS work_units, total(engine_s) AS engine_s,"  # noqa: S608
        " ifnull(sum(price_nanos / :nanos), 0) AS price, ifnull(sum(price_nanos % :nanos), 0) AS price_nanos"
        " FROM usage WHERE day BETWEEN :first_day AND :last_day"
        " AND (:key_id IS NULL OR key_id = :key_id) AND (:user IS NULL OR user = :user)"
        + (f" GROUP BY {', '.join(groups)} ORDER BY {', '.join(groups)}" if groups else "")
        + " LIMIT :max_rows"
    )
    values = msgspec.structs.asdict(question) | {
        "nanos": _NANOS,
        "first_day": question.first_day.isoformat(),
        "last_day": question.last_day.isoformat(),
        "max_rows": -1 if question.max_rows is None else question.max_rows,
    }
    return [_usage(row) for row in connection.execute(statement, values).fetchall()]


def _usage(row: sqlite3.Row) -> Usage:
    columns = dict(row)
    day, price = columns.pop("day"), columns.pop("price") + columns.pop("price_nanos") * NANO
    return Usage(day=None if day is None else date.fromisoformat(day), price=price, **columns)
