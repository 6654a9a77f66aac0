"""Account statement: a user's credits left and spent, by day and dream, and all ledger entries as CSV."""

from __future__ import annotations

import csv
import datetime
import io
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby
from typing import Any, Final

from django.core.paginator import Page, Paginator
from django.db.models import Case, F, Max, Q, QuerySet, Sum, When
from django.db.models.functions import TruncDate
from django.utils import timezone

from newdreamflow.dreams import ledger
from newdreamflow.dreams.models import AnyUser, Dream, LedgerEntry

__all__ = ["LINES_A_PAGE", "Day", "Line", "Totals", "as_csv", "days_of", "lines_of", "totals_of"]

LINES_A_PAGE: Final = 50


@dataclass(frozen=True, slots=True)
class Totals:
    """A user's credits in four numbers."""

    left: Decimal
    """For new dreams."""
    set_aside: Decimal
    """For dreams that have not ended."""
    spent: Decimal
    """For pictures."""
    num_drawn: int
    """Dreams that were paid for."""


@dataclass(frozen=True, slots=True)
class Line:
    """What one dream moved on one day; or a grant."""

    dream: Dream | None
    note: str
    """Of a grant."""
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Day:
    """One day of a page."""

    date: datetime.date
    spent: Decimal
    """On dreams, all day long."""
    left: Decimal
    """At its end."""
    lines: list[Line]
    """Those of this page."""


def totals_of(user: AnyUser) -> Totals:
    """Where a user's credits are."""
    left = ledger.balance(user)
    entries = LedgerEntry.objects.filter(user=user)
    is_over = Q(dream__status__in=Dream.FINISHED)
    sums = entries.aggregate(
        set_aside=Sum("amount", filter=Q(dream__isnull=False) & ~is_over), spent=Sum("amount", filter=is_over)
    )
    return Totals(
        left=left,
        set_aside=-ledger.exact(sums["set_aside"]),
        spent=-ledger.exact(sums["spent"]),
        num_drawn=Dream.objects.filter(user=user, status=Dream.Status.DONE).count(),
    )


def lines_of(user: AnyUser, number: str | None) -> Page[Any]:
    """One page of what `days_of` shows."""
    entries = LedgerEntry.objects.filter(user=user).annotate(
        day=TruncDate("created_at"), grant=Case(When(dream=None, then=F("pk")))
    )
    lines = entries.values("day", "dream_id", "grant").annotate(moved=Sum("amount"), last=Max("pk"))
    return Paginator(lines.order_by("-day", "-last"), LINES_A_PAGE).get_page(number)


def days_of(user: AnyUser, page: Page[Any]) -> list[Day]:
    """The days of a page of lines, the newest first. Their sums are of whole days, wherever a page begins or ends."""
    rows = list(page)
    if not rows:
        return []
    dreams = Dream.objects.in_bulk({row["dream_id"] for row in rows} - {None})
    grants = LedgerEntry.objects.filter(pk__in={row["grant"] for row in rows} - {None})
    notes = dict(grants.values_list("pk", "note"))
    newest, oldest = rows[0]["day"], rows[-1]["day"]
    by_day = LedgerEntry.objects.filter(user=user).annotate(day=TruncDate("created_at")).filter(day__lte=newest)
    left = ledger.exact(by_day.aggregate(sum=Sum("amount"))["sum"])
    of_day = {
        row["day"]: row
        for row in by_day.filter(day__gte=oldest)
        .order_by()
        .values("day")
        .annotate(moved=Sum("amount"), on_dreams=Sum("amount", filter=Q(dream__isnull=False)))
    }
    days = []
    for date, lines in groupby(rows, key=lambda row: row["day"]):
        sums = of_day[date]
        found = [
            Line(dreams.get(row["dream_id"]), notes.get(row["grant"], ""), ledger.exact(row["moved"])) for row in lines
        ]
        days.append(Day(date, spent=-ledger.exact(sums["on_dreams"]), left=left, lines=found))
        left -= ledger.exact(sums["moved"])
    return days


def as_csv(user: AnyUser) -> str:
    """Every entry, the oldest first, with what was left after it."""
    entries: QuerySet[LedgerEntry] = LedgerEntry.objects.filter(user=user).select_related("dream").order_by("pk")
    file = io.StringIO()
    write = csv.writer(file)
    write.writerow(["time", "kind", "dream", "prompt", "note", "credits", "left"])
    write.writerows(_csv_rows(entries.iterator(chunk_size=1000)))
    return file.getvalue()


def _csv_rows(entries: Iterable[LedgerEntry]) -> Iterable[list[str]]:
    left = Decimal(0)
    for entry in entries:
        left += entry.amount
        dream = entry.dream
        yield [
            timezone.localtime(entry.created_at).isoformat(timespec="seconds"),
            entry.kind,
            "" if dream is None else str(dream.uuid),
            "" if dream is None else _harmless("(deleted)" if dream.deleted_at else dream.prompt),
            _harmless(entry.note),
            str(entry.amount),
            str(left),
        ]


def _harmless(text: str) -> str:
    """A spreadsheet would take a text that begins like this for a formula, and run it."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text
