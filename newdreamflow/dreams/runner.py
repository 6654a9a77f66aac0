"""Who advances dreams, by `DREAMS_RUNNER`: the database runner (`manage.py dreamworker`) or Celery. The same act.

The `Dream` row says when it wants to be advanced (`next_try_at`); a runner only has to look. What a runner loses, a
killed worker, a message that never came, is therefore never lost: the row is still due.
"""

from __future__ import annotations

import datetime

from django.db import transaction
from django.utils import timezone

from newdreamflow.dreams.conf import dreams_settings
from newdreamflow.dreams.models import Dream

__all__ = ["due_ids", "wake"]


def wake(dream_id: int, at: datetime.datetime) -> None:
    """See to it that a dream is advanced when it wants to be, once the transaction is through."""
    if dreams_settings.DREAMS_RUNNER != "celery":
        return  # the database runner looks at the rows by itself
    from newdreamflow.dreams.tasks import advance_later  # noqa: PLC0415 -- Celery is needed by this runner only

    pause_s = max(0.0, (at - timezone.now()).total_seconds())
    transaction.on_commit(lambda: advance_later(dream_id, pause_s))


def due_ids(limit: int) -> list[int]:
    """The dreams that want to be advanced now, the longest due first."""
    return list(Dream.objects.due(timezone.now()).order_by("next_try_at").values_list("pk", flat=True)[:limit])
