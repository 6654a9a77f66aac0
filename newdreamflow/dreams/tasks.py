"""The Celery runner: messages that say which dream to look at. Losing one costs seconds, a second one does no harm."""

from __future__ import annotations

import logging

from celery import shared_task
from kombu.exceptions import OperationalError

from newdreamflow.dreams import services
from newdreamflow.dreams.runner import due_ids

__all__ = ["advance_dream", "advance_later", "reap"]

logger = logging.getLogger(__name__)

_MOST_AT_ONCE = 500


@shared_task(ignore_result=True)  # type: ignore[untyped-decorator]  # Celery ships no types
def advance_dream(dream_id: int) -> None:
    """Take a dream one step further."""
    services.advance(dream_id=dream_id)


@shared_task(ignore_result=True)  # type: ignore[untyped-decorator]  # the same
def reap() -> None:
    """Send what is due once more: its message was lost, or its worker died with the lease. Runs every few seconds."""
    services.erase_left_over()
    for dream_id in due_ids(_MOST_AT_ONCE):
        advance_dream.delay(dream_id)


def advance_later(dream_id: int, pause_s: float) -> None:
    """Put a message into the queue. If the broker is away, the reaper will."""
    try:
        advance_dream.apply_async(args=[dream_id], countdown=pause_s or None, retry=False)
    except OperationalError as error:
        logger.warning("the message for dream %d was not sent: %s", dream_id, error)
