"""The staff page: status of site and GPU server. Other users get 404."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from newdreamflow.dreams import gpu_server, staff_statistics
from newdreamflow.dreams.models import Dream
from newdreamflow.dreams.staff_statistics import Day

__all__ = ["overview"]

_CHART_DAYS: Final = 30
_MOST_TROUBLES: Final = 20
_PERIODS: Final = (("24 hours", datetime.timedelta(days=1)), ("7 days", datetime.timedelta(days=7)))


@require_safe
@never_cache
def overview(request: HttpRequest) -> HttpResponse:
    """Everything on one page."""
    if not (request.user.is_authenticated and request.user.is_staff):
        raise Http404
    days = staff_statistics.days(_CHART_DAYS)
    context = {
        "health": gpu_server.health(),
        "overdue_s": staff_statistics.overdue_s(),
        "periods": [(name, staff_statistics.period(length)) for name, length in _PERIODS],
        "statuses": [
            (Dream.Status(status).label, number) for status, number in staff_statistics.dreams_by_status().items()
        ],
        "credits_spent": staff_statistics.credits_spent(),
        "days": days,
        "bars": _bars(days),
        "most_a_day": max(day.all for day in days),
        "num_dreams": sum(day.all for day in days),
        "troubles": staff_statistics.dreams_in_trouble(_MOST_TROUBLES),
        "most_troubles": _MOST_TROUBLES,
    }
    return render(request, "dreams/staff/overview.html", context)


@dataclass(frozen=True, slots=True)
class _Part:
    """A rectangle of the chart, in its own units: 10 wide a day, 100 high for the fullest day."""

    kind: str
    x: int
    y: float
    height: float


def _bars(days: Sequence[Day]) -> list[tuple[Day, list[_Part]]]:
    """Each day's bar, from below: done, failed, others."""
    unit = 100.0 / max(1, *(day.all for day in days))
    bars = []
    for index, day in enumerate(days):
        top = 100.0
        parts = []
        for kind, number in (("done", day.done), ("failed", day.failed), ("others", day.others)):
            top -= number * unit
            if number:
                parts.append(_Part(kind, index * 10, round(top, 2), round(number * unit, 2)))
        bars.append((day, parts))
    return bars
