"""The Celery runner: tasks that say which dream to advance. A lost one costs seconds, a duplicate does no harm."""

from __future__ import annotations

from typing import Final

from celery import shared_task
from django.utils import timezone

from newdreamflow.dreams import advancing, erasing, photos
from newdreamflow.dreams.models import Dream
from newdreamflow.dreams.runner import ADVANCE_TASK

__all__ = ["advance_dream", "delete_expired_photos", "reap"]

_MOST_AT_ONCE: Final = 500
_EXPIRES_S: Final = 10
"""Of a message that was sent once more: while no worker takes them, the queue holds a few rounds and does not grow."""


@shared_task(name=ADVANCE_TASK, ignore_result=True)  # type: ignore[untyped-decorator]  # Celery ships no types
def advance_dream(dream_id: int) -> None:
    """Take a dream one step further."""
    advancing.advance(dream_id=dream_id)


@shared_task(ignore_result=True)  # type: ignore[untyped-decorator]  # the same
def reap() -> None:
    """Send what is due once more: its message was lost, or its worker died with the lease. Runs every few seconds."""
    erasing.erase_left_over()
    for dream_id in Dream.objects.due_pks(timezone.now(), _MOST_AT_ONCE):
        advance_dream.apply_async(args=[dream_id], expires=_EXPIRES_S)


@shared_task(ignore_result=True)  # type: ignore[untyped-decorator]  # the same
def delete_expired_photos() -> None:
    """Delete photos that no dream was made of. Runs every hour."""
    photos.delete_expired()
