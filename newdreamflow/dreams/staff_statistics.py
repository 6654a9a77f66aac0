"""Statistics of recent dreams for the staff page, in a fixed number of queries."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from django.db.models import Avg, Count, DurationField, ExpressionWrapper, F, Q, Sum
from django.db.models.functions import TruncDate
from django.utils import timezone

from newdreamflow.dreams.models import Dream

__all__ = ["Day", "Period", "credits_spent", "days", "dreams_by_status", "dreams_in_trouble", "overdue_s", "period"]

_DONE: Final = Q(status=Dream.Status.DONE)
_FAILED: Final = Q(status=Dream.Status.FAILED)
_TOOK: Final = ExpressionWrapper(F("finished_at") - F("created_at"), output_field=DurationField())
"""From the press of the button to the picture."""

_OVERDUE_AFTER: Final = datetime.timedelta(seconds=15)


@dataclass(frozen=True, slots=True)
class Period:
    """The dreams that ended in some span of time."""

    done: int
    failed: int
    cancelled: int
    retries: int
    """Times that something was tried again."""
    redraws: int
    """Times that the GPU server had lost a job."""
    average_s: float | None
    """From submitting to the picture; None if none was finished."""
    p95_s: float | None
    credits: Decimal

    @property
    def success_rate(self) -> float | None:
        """Per cent; what was cancelled does not count. None if there is nothing to count."""
        return 100.0 * self.done / (self.done + self.failed) if self.done + self.failed else None


@dataclass(frozen=True, slots=True)
class Day:
    """The dreams that were begun on one day."""

    date: datetime.date
    done: int
    failed: int
    others: int
    """Cancelled, or not finished yet."""

    @property
    def all(self) -> int:
        """All of them."""
        return self.done + self.failed + self.others


def period(length: datetime.timedelta) -> Period:
    """What ended since so long ago."""
    ended = Dream.objects.filter(finished_at__gte=timezone.now() - length)
    sums = ended.aggregate(
        done=Count("pk", filter=_DONE),
        failed=Count("pk", filter=_FAILED),
        cancelled=Count("pk", filter=Q(status=Dream.Status.CANCELLED)),
        retries=Sum("num_retries", default=0),
        redraws=Sum("redraws", default=0),
        average=Avg(_TOOK, filter=_DONE),
        credits=Sum("cost", default=Decimal(0)),
    )
    average: datetime.timedelta | None = sums.pop("average")
    p95: datetime.timedelta | None = None
    if sums["done"]:
        # The nearest rank: of 20 the 19th.
        rank = -(-sums["done"] * 95 // 100) - 1
        p95 = ended.filter(_DONE).annotate(took=_TOOK).order_by("took").values_list("took", flat=True)[rank]
    return Period(
        **sums,
        average_s=None if average is None else average.total_seconds(),
        p95_s=None if p95 is None else p95.total_seconds(),
    )


def dreams_by_status() -> dict[str, int]:
    """Status -> dreams, those of zero too."""
    counted = dict(Dream.objects.order_by().values_list("status").annotate(Count("pk")))
    return {status.value: counted.get(status.value, 0) for status in Dream.Status}


def days(number: int) -> Sequence[Day]:
    """The last days up to today, the oldest first, those without dreams too."""
    today = timezone.localdate()
    first = today - datetime.timedelta(days=number - 1)
    midnight = timezone.make_aware(datetime.datetime.combine(first, datetime.time.min))
    counted = (
        Dream.objects.filter(created_at__gte=midnight)
        .order_by()
        .annotate(date=TruncDate("created_at"))
        .values_list("date")
        .annotate(done=Count("pk", filter=_DONE), failed=Count("pk", filter=_FAILED), all=Count("pk"))
    )
    of_date = {date: Day(date, done, failed, every - done - failed) for date, done, failed, every in counted}
    dates = [first + datetime.timedelta(days=number) for number in range(number)]
    return [of_date.get(date, Day(date, 0, 0, 0)) for date in dates]


def credits_spent() -> Decimal:
    """By everybody, ever."""
    spent: Decimal = Dream.objects.aggregate(spent=Sum("cost", default=Decimal(0)))["spent"]
    return spent


def dreams_in_trouble(most: int) -> Sequence[Dream]:
    """Unfinished dreams that something holds up, those that wait longest first."""
    held_up = Dream.objects.unfinished().exclude(trouble="").select_related("user")
    return list(held_up.order_by("created_at")[:most])


def overdue_s() -> float | None:
    """Seconds that the oldest dream has been overdue: the worker is away. None if none is."""
    now = timezone.now()
    longest = Dream.objects.due(now - _OVERDUE_AFTER).exclude(lease_until__gt=now).order_by("next_try_at").first()
    return None if longest is None else (now - longest.next_try_at).total_seconds()
