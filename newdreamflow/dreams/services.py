"""User actions on dreams, one function each: submit, cancel, delete, publish, retry now.

Each writes to the database and is done; nothing is waited for. What the background does with a dream is in
`advancing.py`.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from django.db import transaction
from django.utils import timezone

from newdreamflow.dreams import erasing, inputs, ledger, runner
from newdreamflow.dreams.conf import dreams_settings
from newdreamflow.dreams.gpu_server import WORK_UNIT_PLACES
from newdreamflow.dreams.models import HIRES_SCALE, MAX_SEED, AnyUser, Dream, Tag, hires_steps, steps_taken

__all__ = ["TooManyDreamsError", "Wish", "cancel", "delete", "estimated_work_units", "hurry", "publish", "submit"]


_READING_ROWS: Final = Decimal("1.4")
"""What it takes to read the picture that is drawn over, as the GPU server counts it; once a dream."""


class TooManyDreamsError(Exception):
    """The user has as many unfinished dreams as they may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a user asks to be drawn: prompt, size, style and the other parameters."""

    prompt: str
    negative_prompt: str = ""
    style: str = ""
    num_inference_steps: int = 28
    guidance_scale: float = 7.0
    width: int = 512
    height: int = 512
    seed: int | None = None
    """None: any."""
    num_images: int = 1
    over: inputs.Input | None = None
    """What it is drawn over; None: it is drawn from words alone."""
    strength: float | None = None
    """Given with `over`."""
    expand: str = ""
    """Which way `over` grows (`growth.py`); `width` and `height` are of the result. Empty: it does not."""
    hires: bool = False
    """Enlarge the picture and draw on; not together with `over`."""
    model: str = ""
    """Which of the site's models draws; empty: the GPU server's default."""
    is_public: bool = False
    tags: Sequence[str] = ()


def estimated_work_units(wish: Wish) -> Decimal:
    """Estimated work units of a request, before the GPU server reports them: 28 guided steps at 512x512 are 1."""
    rows = 2 if wish.guidance_scale > 1 else 1
    steps = steps_taken(wish.num_inference_steps, wish.strength)
    if wish.hires:
        steps += HIRES_SCALE**2 * hires_steps(wish.num_inference_steps)  # in steps of the first size
    drawn = Decimal(rows * steps * wish.num_images) + (_READING_ROWS if wish.over is not None else 0)
    return (drawn * wish.width * wish.height / Decimal(56 * 512 * 512)).quantize(WORK_UNIT_PLACES)


def submit(*, user: AnyUser, wish: Wish, submission: uuid.UUID | None = None) -> Dream:
    """Accept a dream and set aside what it will cost. It is drawn in the background.

    Args:
        user: whose dream.
        wish: what to draw.
        submission: of the form; the same one again is the same dream.

    Raises:
        BudgetExceededError: it would cost more than is left.
        TooManyDreamsError: too many are unfinished.
    """
    submission = submission or uuid.uuid4()
    with transaction.atomic():
        # Also what keeps two parallel requests from both finding room, and one submission from being two dreams.
        ledger.locked_budget(user)
        earlier = Dream.objects.filter(user=user, submission=submission).first()
        if earlier is not None and earlier.deleted_at is None:
            return earlier
        if earlier is not None:
            submission = uuid.uuid4()  # a form from the browser's history, whose dream is gone: a new wish
        if Dream.objects.filter(user=user).unfinished().count() >= dreams_settings.DREAMS_MAX_UNFINISHED:
            raise TooManyDreamsError
        work_units = estimated_work_units(wish)
        dream = Dream.objects.create(
            user=user,
            submission=submission,
            prompt=wish.prompt,
            negative_prompt=wish.negative_prompt,
            style=wish.style,
            num_inference_steps=wish.num_inference_steps,
            guidance_scale=wish.guidance_scale,
            width=wish.width,
            height=wish.height,
            seed=secrets.randbelow(MAX_SEED + 1) if wish.seed is None else wish.seed,
            num_images=wish.num_images,
            strength=wish.strength if wish.over is not None else None,
            has_mask=wish.over is not None and wish.over.mask is not None,
            expand=wish.expand if wish.over is not None else "",
            hires=wish.hires and wish.over is None,
            wanted_model=wish.model,
            is_public=wish.is_public,
            work_units=work_units,
        )
        ledger.reserve(dream, ledger.price_of(work_units))
        dream.tags.set([Tag.objects.get_or_create(name=name)[0] for name in wish.tags])
        if wish.over is not None:
            _keep(dream, wish.over)
        runner.wake(dream.pk, dream.next_try_at)
    return dream


def _keep(dream: Dream, given: inputs.Input) -> None:
    """Write the files of a dream that is not committed yet: the row must never be there without them."""
    try:
        inputs.keep(dream, given)
    except BaseException:
        inputs.delete_files(dream)
        raise


def cancel(*, dream: Dream) -> None:
    """Ask for a dream to be stopped. One that has ended stays as it is."""
    now = timezone.now()
    with transaction.atomic():
        asked = Dream.objects.filter(pk=dream.pk, cancel_requested_at=None).unfinished()
        if asked.update(cancel_requested_at=now, next_try_at=now):
            runner.wake(dream.pk, now)


def delete(*, dream: Dream) -> None:
    """Take a dream and its pictures away for good. What it cost stays in the ledger."""
    cancel(dream=dream)
    with transaction.atomic():
        Dream.objects.filter(pk=dream.pk).update(deleted_at=timezone.now(), is_public=False)
        dream.tags.clear()
    erasing.erase_if_over(dream.pk)


def publish(*, dream: Dream, is_public: bool) -> None:
    """Show a dream to everybody, or to its owner alone."""
    Dream.objects.filter(pk=dream.pk, deleted_at=None).update(is_public=is_public)


def hurry(*, dream: Dream) -> None:
    """Make a dream due now: a watcher has seen that there is something to fetch."""
    now = timezone.now()
    with transaction.atomic():
        if Dream.objects.filter(pk=dream.pk).unfinished().update(next_try_at=now):
            runner.wake(dream.pk, now)
