"""Everything that can be done with a dream, one function an act. Only this module speaks to the GPU server.

Acts of people (`submit`, `cancel`, `delete`, ...) write to the database and are done; nothing is ever waited for.
`advance` is the act of the background: it takes a dream one step further and may run twice, at the same time even,
without harm: what it asks of the GPU server carries the dream's idempotency key, and what it writes is written only
while it holds the dream's lease.
"""

from __future__ import annotations

import datetime
import logging
import os
import random
import secrets
import threading
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from django.db import transaction
from django.utils import timezone
from semantic_bit_client import (
    AsyncClient,
    Client,
    Health,
    InvalidRequest,
    JobFailed,
    JobNotFound,
    JobState,
    KeyReused,
    Progress,
    RateLimited,
    ResultExpired,
    Retries,
    SemanticBitError,
    ServerBusy,
)

from newdreamflow.dreams import ledger, pictures, runner, words
from newdreamflow.dreams.conf import dreams_settings
from newdreamflow.dreams.models import MAX_SEED, Dream, Picture, Tag
from newdreamflow.dreams.styles import styled

__all__ = [
    "Progress",
    "TooManyDreamsError",
    "Wish",
    "advance",
    "cancel",
    "delete",
    "erase_left_over",
    "estimated_work_units",
    "follow",
    "gpu_server_health",
    "hurry",
    "publish",
    "submit",
]

logger = logging.getLogger(__name__)

SAMPLER: Final = "DPM++ 2M Karras"
"""Named, so that what a dream costs is known before it is sent, whatever the GPU server's default is."""

_CLIENT_RETRIES: Final = Retries(attempts=1)
"""The dream's own row remembers when to try again, so no worker waits."""

_AS_TOLD: Final = Decimal("0.000001")
"""Work units as the GPU server tells them."""

_FOLLOWER_RETRIES: Final = Retries(attempts=2, time_s=3.0)

_MOST_REDRAWS: Final = 5
_FIRST_PAUSE_S: Final = 1.0
_SHORTEST_LOOK_S: Final = 0.2
_LONGEST_LOOK_S: Final = 5.0


class TooManyDreamsError(Exception):
    """The user has as many unfinished dreams as they may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a user asks for."""

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
    is_public: bool = False
    tags: Sequence[str] = ()


def estimated_work_units(wish: Wish) -> Decimal:
    """What the GPU server will say that a wish costs: 28 guided steps at 512x512 are 1."""
    rows = 2 if wish.guidance_scale > 1 else 1
    pixels = wish.width * wish.height
    exactly = Decimal(rows * wish.num_inference_steps * pixels * wish.num_images) / Decimal(56 * 512 * 512)
    return exactly.quantize(_AS_TOLD)


def submit(*, user: Any, wish: Wish, submission: uuid.UUID | None = None) -> Dream:  # noqa: ANN401 -- a user of any model
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
            is_public=wish.is_public,
            work_units=work_units,
        )
        ledger.reserve(dream, ledger.price_of(work_units))
        dream.tags.set([Tag.objects.get_or_create(name=name)[0] for name in wish.tags])
        runner.wake(dream.pk, dream.next_try_at)
    return dream


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
    _erase_if_over(dream.pk)


def publish(*, dream: Dream, is_public: bool) -> None:
    """Show a dream to everybody, or to its owner alone."""
    Dream.objects.filter(pk=dream.pk, deleted_at=None).update(is_public=is_public)


def hurry(*, dream: Dream) -> None:
    """Have a dream advanced now: somebody has seen that there is something to fetch."""
    now = timezone.now()
    with transaction.atomic():
        if Dream.objects.filter(pk=dream.pk).unfinished().update(next_try_at=now):
            runner.wake(dream.pk, now)


# --- in the background ------------------------------------------------------------------------------------------------


def advance(*, dream_id: int) -> None:
    """Take a dream one step further, if its time has come and nobody else has it."""
    dream = _claimed(dream_id)
    if dream is None:
        return
    try:
        changes = _step(dream)
    except Exception as error:
        if not isinstance(error, SemanticBitError):
            logger.exception("dream %s could not be advanced", dream.uuid)
        changes = _later(dream, error)
    _write(dream, changes)
    if dream.deleted_at is not None or changes.get("status") in Dream.FINISHED:
        _erase_if_over(dream.pk)


@dataclass(frozen=True, slots=True)
class _Finish:
    """How a dream ends, beside its columns."""

    pictures: Sequence[Picture] = ()
    cost: Decimal | None = None
    """None: nothing is charged."""


_Changes = dict[str, Any]


def _step(dream: Dream) -> _Changes:
    if dream.remote_job_id:
        return _look(dream)
    if dream.cancel_requested_at is not None and dream.sent_at is None:
        return _cancelled()  # the GPU server has never heard of it
    return _send(dream)


def _send(dream: Dream) -> _Changes:
    """Hand it to the GPU server. However often: by its idempotency key it is one job there."""
    if dream.sent_at is None:
        # Before it is sent: whoever finds it after our sudden end must not take it for unsent.
        Dream.objects.filter(pk=dream.pk, lease_token=dream.lease_token).update(sent_at=timezone.now())
    try:
        job = _client().submit(
            styled(dream.prompt, dream.style),
            idempotency_key=dream.idempotency_key,
            negative_prompt=dream.negative_prompt or None,
            num_inference_steps=dream.num_inference_steps,
            guidance_scale=dream.guidance_scale,
            width=dream.width,
            height=dream.height,
            seed=dream.seed,
            num_images=dream.num_images,
            sampler=SAMPLER,
            user=str(dream.user_id),
        )
    except KeyReused:
        # The GPU server keeps another job under it, of a database that was put back to an older state.
        return _drawn_anew(dream)
    if dream.cancel_requested_at is not None and not job.state.is_over and job.cancel().status == "cancelled":
        return _cancelled()  # it may have been there already, so it had to be asked for to be found
    return {
        "status": Dream.Status.DRAWING,
        "remote_job_id": job.id,
        "work_units": _work_units(job.state),
        "next_try_at": _next_look(job.state),
        **_NO_TROUBLE,
    }


_NO_TROUBLE: Final[_Changes] = {"tries_in_vain": 0, "trouble": ""}


def _look(dream: Dream) -> _Changes:
    """See how it is at the GPU server, and fetch what is finished."""
    try:
        job = _client().job(dream.remote_job_id)
        if dream.cancel_requested_at is not None and not job.state.is_over:
            job.cancel()
        if not job.state.is_over:
            return {"next_try_at": _next_look(job.state), **_NO_TROUBLE}
        if job.state.status == "cancelled":
            return _cancelled()
        found = job.images()
    except (JobNotFound, ResultExpired):
        # It has lost its data, or kept the pictures for too short a time: the same seed draws them again.
        return _drawn_anew(dream)
    state = job.state
    drawn = [pictures.Drawn(picture.bytes, picture.media_type, picture.seed) for picture in found]
    kept = [pictures.kept(dream, index, picture) for index, picture in enumerate(drawn)]
    work_units = _work_units(state)
    cost = ledger.price_of(work_units)
    return {
        "status": Dream.Status.DONE,
        "finished_at": timezone.now(),
        "work_units": work_units,
        "cost": cost,
        "engine_s": None if state.timings is None else state.timings.total_s - state.timings.queue_s,
        "model": state.model,
        "finish": _Finish(pictures=kept, cost=cost),
        **_NO_TROUBLE,
    }


def _work_units(state: JobState) -> Decimal:
    # Whatever a server says: nobody is paid for a dream.
    return max(Decimal(str(state.work_units)).quantize(_AS_TOLD), Decimal(0))


def _drawn_anew(dream: Dream) -> _Changes:
    """Ask for it under a new key."""
    if dream.redraws >= _MOST_REDRAWS:
        return _failed("lost", words.LOST)
    pause_s = _pause_s(dream.redraws, None) if dream.redraws else 0.0
    return {
        "status": Dream.Status.WAITING,
        "remote_job_id": "",
        "redraws": dream.redraws + 1,
        "sent_at": None,
        "next_try_at": timezone.now() + datetime.timedelta(seconds=pause_s),
    }


def _cancelled() -> _Changes:
    return {"status": Dream.Status.CANCELLED, "finished_at": timezone.now(), "finish": _Finish(), **_NO_TROUBLE}


def _failed(code: str, error: str) -> _Changes:
    return {
        "status": Dream.Status.FAILED,
        "finished_at": timezone.now(),
        "error_code": code[:40],
        "error": error[:300],
        "finish": _Finish(),
        **_NO_TROUBLE,
    }


def _later(dream: Dream, error: Exception) -> _Changes:
    """What an error means for a dream: it fails, or is tried again after a pause that grows."""
    match error:
        case InvalidRequest() if error.code:  # else it was some proxy that refused it
            rules = "; ".join(f"{wrong.field} {wrong.rule}" for wrong in error.wrong_values)
            return _failed(error.code, words.of_failure("invalid_request", rules))
        case JobFailed():
            return _failed(error.code, words.of_failure(error.code))
        case _ if dream.cancel_requested_at is not None:
            # Its owner does not wait for a painter who is away. Should the job go on there, nobody pays for it.
            return _cancelled()
        case _ if timezone.now() - dream.created_at > datetime.timedelta(
            seconds=dreams_settings.DREAMS_GIVE_UP_AFTER_S
        ):
            return _failed("given_up", words.GIVEN_UP)
        case SemanticBitError():
            logger.warning("dream %s: %s: %s", dream.uuid, type(error).__name__, error)
    pause_s = _pause_s(dream.tries_in_vain, getattr(error, "retry_after_s", None))
    trouble = words.PAINTER_BUSY if isinstance(error, ServerBusy | RateLimited) else words.PAINTER_RESTS
    return {
        "tries_in_vain": dream.tries_in_vain + 1,
        "num_retries": dream.num_retries + 1,
        "next_try_at": timezone.now() + datetime.timedelta(seconds=pause_s),
        "trouble": words.in_a_moment(trouble, pause_s),
    }


def _pause_s(tries_in_vain: int, retry_after_s: float | None) -> float:
    """Exponential backoff, of which half is chance, and never less than the GPU server asks for."""
    longest_s = dreams_settings.DREAMS_LONGEST_PAUSE_S
    limit_s = min(longest_s, _FIRST_PAUSE_S * 2.0 ** min(tries_in_vain, 20))
    return max(limit_s * random.uniform(0.5, 1.0), min(retry_after_s or 0.0, longest_s))  # noqa: S311 -- no secret


def _next_look(state: JobState) -> datetime.datetime:
    """When to look again, if nobody does before: whoever watches a dream hurries it when it is done."""
    eta_s = _LONGEST_LOOK_S if state.eta_s is None else state.eta_s
    return timezone.now() + datetime.timedelta(seconds=min(max(eta_s, _SHORTEST_LOOK_S), _LONGEST_LOOK_S))


def _claimed(dream_id: int) -> Dream | None:
    """The dream, for this caller alone until its lease is over."""
    now = timezone.now()
    token = uuid.uuid4()
    lease_until = now + datetime.timedelta(seconds=dreams_settings.DREAMS_LEASE_S)
    is_mine = Dream.objects.filter(pk=dream_id).due(now).update(lease_token=token, lease_until=lease_until)
    return Dream.objects.select_related("user").get(pk=dream_id) if is_mine else None


def _write(dream: Dream, changes: _Changes) -> None:
    """Write what an advance has come to, unless its lease has passed to somebody else meanwhile."""
    finish: _Finish | None = changes.pop("finish", None)
    with transaction.atomic():
        if finish is not None:
            ledger.locked_budget(dream.user)
        mine = Dream.objects.filter(pk=dream.pk, lease_token=dream.lease_token).unfinished()
        if not mine.update(**changes, lease_token=None, lease_until=None):
            logger.warning("dream %s: its lease was over before the work was", dream.uuid)
            return
        if finish is None:
            # It may have been cancelled while we had it: that wants to be seen to at once, not at the next look.
            next_try_at = changes.get("next_try_at", dream.next_try_at)
            if dream.cancel_requested_at is None:
                cancelled = Dream.objects.filter(pk=dream.pk).exclude(cancel_requested_at=None)
                if cancelled.update(next_try_at=timezone.now()):
                    next_try_at = timezone.now()
            runner.wake(dream.pk, next_try_at)
            return
        Picture.objects.filter(dream=dream).delete()
        Picture.objects.bulk_create(finish.pictures)
        if finish.cost is None:
            pictures.delete_files(dream)  # of one who had fetched them and came to a sudden end
            ledger.release(dream)
        else:
            ledger.settle(dream, finish.cost)


def erase_left_over() -> None:
    """Erase what a sudden end kept from being erased: words and pictures of dreams that were deleted."""
    gone = Dream.objects.filter(status__in=Dream.FINISHED).exclude(deleted_at=None)
    for dream_pk in gone.exclude(prompt="", pictures=None).values_list("pk", flat=True).distinct():
        _erase_if_over(dream_pk)


def _erase_if_over(dream_pk: int) -> None:
    """Remove wish and pictures of a dream that was deleted, once nothing more happens to it."""
    gone = Dream.objects.filter(pk=dream_pk, status__in=Dream.FINISHED).exclude(deleted_at=None)
    dream = gone.first()
    if dream is None:
        return
    pictures.delete_files(dream)
    # The words last: as long as they are there, what is left is found again after a sudden end.
    Picture.objects.filter(dream=dream).delete()
    gone.update(prompt="", negative_prompt="", error="", trouble="")


# --- looking ----------------------------------------------------------------------------------------------------------


async def follow(*, dream: Dream) -> AsyncGenerator[Progress, None]:
    """How far a dream is at the GPU server, until it has ended there or cannot be followed any more."""
    async with _async_client() as client:
        try:
            job = await client.job(dream.remote_job_id)
            async with aclosing(job.events(timeout_s=_LONGEST_FOLLOW_S)) as events:
                async for progress in events:
                    yield progress
        except SemanticBitError as error:
            logger.info("dream %s cannot be followed: %s", dream.uuid, error)


_LONGEST_FOLLOW_S: Final = 600.0


def gpu_server_health() -> Health | None:
    """How the GPU server is; None if it cannot be reached."""
    try:
        return _client().health()
    except SemanticBitError:
        return None


_clients: Final[dict[tuple[int, str, str], Client]] = {}
"""By process, since connections do not survive a fork, and by where they lead."""
_clients_lock: Final = threading.Lock()


def _client() -> Client:
    url, api_key = dreams_settings.GPU_SERVER_URL, dreams_settings.GPU_SERVER_API_KEY
    with _clients_lock:
        key = (os.getpid(), url, api_key)
        if key not in _clients:
            _clients[key] = Client(url, api_key or None, retries=_CLIENT_RETRIES)
        return _clients[key]


def _async_client() -> AsyncClient:
    # One for each follower: an event loop's connections belong to it alone.
    return AsyncClient(
        dreams_settings.GPU_SERVER_URL, dreams_settings.GPU_SERVER_API_KEY or None, retries=_FOLLOWER_RETRIES
    )
