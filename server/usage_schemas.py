"""The JSON of `/v1/usage`: what was drawn, for whom, and what it cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from decimal import Decimal
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from server.jobs.price import written
from server.jobs.usage import Grouping, Usage, UsageQuestion

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
    """What was drawn."""

    jobs: JobCounts
    images: int
    work_units: float
    """Of the jobs that are done: only those are charged."""
    engine_s: float
    """Seconds of the engine, spent on all of them."""
    price: str
    """As it was when each of them ended: a decimal number, exact."""


class UsageRow(UsageSum):
    """What was drawn for one group."""

    day: date | None
    """On which the jobs ended, UTC; null where days are added up."""
    key_id: str | None
    """null where keys are added up."""
    user: str | None
    """null where users are added up, and for jobs on nobody's behalf."""


class UsageView(_View):
    """What was drawn on some days. Jobs that are not kept any more count."""

    model_config = ConfigDict(serialize_by_alias=True)

    first_day: date = Field(serialization_alias="from")
    last_day: date = Field(serialization_alias="to")
    group_by: list[Grouping]
    rows: list[UsageRow]
    """In the order of the groups."""
    total: UsageSum

    @classmethod
    def of(cls, question: UsageQuestion, rows: Sequence[Usage]) -> UsageView:
        """Tell what was found."""
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
    told = view.model_dump_json(exclude={"rows", "total"}).removesuffix("}")
    yield f'{told},"rows":['
    for start in range(0, len(rows), _PORTION):
        portion = ",".join(_row(row).model_dump_json() for row in rows[start : start + _PORTION])
        yield f",{portion}" if start else portion
    yield f'],"total":{_total(rows).model_dump_json()}}}'


def _row(row: Usage) -> UsageRow:
    return UsageRow(
        jobs=JobCounts(done=row.done, failed=row.failed, cancelled=row.cancelled, dead=row.dead),
        images=row.images,
        work_units=round(row.work_units, 6),
        engine_s=round(row.engine_s, 3),
        price=written(row.price),
        day=row.day,
        key_id=row.key_id,
        user=row.user,
    )


def _total(rows: Sequence[Usage]) -> UsageSum:
    return UsageSum(
        jobs=JobCounts(**{name: sum(getattr(row, name) for row in rows) for name in JobCounts.model_fields}),
        images=sum(row.images for row in rows),
        work_units=round(sum(row.work_units for row in rows), 6),
        engine_s=round(sum(row.engine_s for row in rows), 3),
        price=written(sum((row.price for row in rows), Decimal(0))),
    )
