"""Wakes the runner that advances dreams, by `DREAMS_RUNNER`: the database runner (`manage.py dreamworker`) or Celery.

The `Dream` row says when it wants to be advanced (`next_try_at`); a runner only has to look. What a runner loses, a
killed worker, a message that never came, is therefore never lost: the row is still due.
"""

from __future__ import annotations

import datetime
import logging
from typing import Final

from django.db import transaction
from django.utils import timezone

from newdreamflow.dreams.conf import dreams_settings

__all__ = ["ADVANCE_TASK", "wake"]

logger = logging.getLogger(__name__)

ADVANCE_TASK: Final = "newdreamflow.dreams.tasks.advance_dream"
"""By its name, so that whatever wakes a dream need not import what advances it."""


def wake(dream_id: int, at: datetime.datetime) -> None:
    """See to it that a dream is advanced when it wants to be, once the transaction is through."""
    if dreams_settings.DREAMS_RUNNER != "celery":
        return  # the database runner looks at the rows by itself
    pause_s = max(0.0, (at - timezone.now()).total_seconds())
    transaction.on_commit(lambda: _send(dream_id, pause_s))


def _send(dream_id: int, pause_s: float) -> None:
    """Put a message into the queue. If the broker is away, the reaper will."""
    from celery import current_app  # noqa: PLC0415 -- Celery is needed by this runner only
    from kombu.exceptions import OperationalError  # noqa: PLC0415 -- the same

    try:
        current_app.send_task(ADVANCE_TASK, args=[dream_id], countdown=pause_s or None, retry=False, ignore_result=True)
    except OperationalError as error:
        logger.warning("the task for dream %d could not be sent: %s", dream_id, error)
