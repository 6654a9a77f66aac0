"""The JSON of `/v1/usage`: usage and cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from decimal import Decimal
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from server.store.price import written
from server.store.usage_table import Grouping, Usage, UsageQuestion

__all__ = ["UsageView", "usage_json"]

_PORTION: Final = 500
"""Rows."""


class _View(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class JobCounts(_View):
    """Jobs by how they ended."""

    done: int
    failed: int
    cancelled: int
    dead: int


class UsageSum(_View):
    """Usage."""

    jobs: JobCounts
    images: int
    work_units: float
    """Work units charged: of jobs that are done."""
    engine_s: float
    """Engine seconds spent on all of these jobs."""
    price: str
    """Sum of each job's price when it ended: an exact decimal number."""


class UsageRow(UsageSum):
    """Usage of one group."""

    day: date | None
    """Day (UTC) on which the jobs ended; null if not grouped by day."""
    key_id: str | None
    """null if not grouped by key."""
    user: str | None
    """null if not grouped by user, and for jobs without a user."""


class UsageView(_View):
    """Usage over a range of days, deleted jobs included."""

    model_config = ConfigDict(serialize_by_alias=True)

    first_day: date = Field(serialization_alias="from")
    last_day: date = Field(serialization_alias="to")
    group_by: list[Grouping]
    rows: list[UsageRow]
    """In the order of the groups."""
    total: UsageSum

    @classmethod
    def of(cls, question: UsageQuestion, rows: Sequence[Usage]) -> UsageView:
        """The JSON view of the sums."""
        return cls(
            first_day=question.first_day,
            last_day=question.last_day,
            group_by=list(question.group_by),
            rows=[_row(row) for row in rows],
            total=_total(rows),
        )


def usage_json(question: UsageQuestion, rows: Sequence[Usage]) -> Iterator[str]:
    """The JSON of `UsageView.of`, in portions that take milliseconds each: a hundred thousand rows take seconds."""
    view = UsageView.of(question, ())
    opening = view.model_dump_json(exclude={"rows", "total"}).removesuffix("}")
    yield f'{opening},"rows":['
    for start in range(0, len(rows), _PORTION):
        portion = ",".join(_row(row).model_dump_json() for row in rows[start : start + _PORTION])
        yield f",{portion}" if start else portion
    yield f'],"total":{_total(rows).model_dump_json()}}}'


def _row(row: Usage) -> UsageRow:
    return UsageRow(**_sums([row]), day=row.day, key_id=row.key_id, user=row.user)


def _total(rows: Sequence[Usage]) -> UsageSum:
    return UsageSum(**_sums(rows))


def _sums(rows: Sequence[Usage]) -> dict[str, Any]:
    """The fields of a `UsageSum`."""
    return {
        "jobs": JobCounts(**{name: sum(getattr(row, name) for row in rows) for name in JobCounts.model_fields}),
        "images": sum(row.images for row in rows),
        "work_units": round(sum(row.work_units for row in rows), 6),
        "engine_s": round(sum(row.engine_s for row in rows), 3),
        "price": written(sum((row.price for row in rows), Decimal(0))),
    }
