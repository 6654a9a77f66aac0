"""The state machine of a dream: takes it one step further, from the request to the picture and its price.

`advance` is the act of the background. It may run twice, at the same time even, without harm: what it asks of the GPU
server carries the dream's idempotency key, and what it writes is written only while it holds the dream's lease.
"""

from __future__ import annotations

import datetime
import logging
import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from django.db import transaction
from django.utils import timezone

from newdreamflow.dreams import erasing, gpu_server, inputs, ledger, pictures, runner, words
from newdreamflow.dreams.conf import dreams_settings
from newdreamflow.dreams.models import Dream, Picture

__all__ = ["advance"]

logger = logging.getLogger(__name__)

_MOST_REDRAWS: Final = 5
_FIRST_PAUSE_S: Final = 1.0
_SHORTEST_LOOK_S: Final = 0.2
_LONGEST_LOOK_S: Final = 5.0


def advance(*, dream_id: int) -> None:
    """Take a dream one step further, if it is due and not leased by another worker."""
    dream = _claimed(dream_id)
    if dream is None:
        return
    try:
        changes = _step(dream)
    except _LeaseLostError:
        logger.warning("dream %s: its lease expired before the work was finished", dream.uuid)
        return
    except Exception as error:
        if not isinstance(error, gpu_server.SemanticBitError):
            logger.exception("dream %s could not be advanced", dream.uuid)
        changes = _later(dream, error)
    _write(dream, changes)
    if dream.deleted_at is not None or changes.get("status") in Dream.FINISHED:
        erasing.erase_if_over(dream.pk)


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
        job = gpu_server.submit(dream)
    except gpu_server.KeyReused:
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
        job = gpu_server.client().job(dream.remote_job_id)
        if dream.cancel_requested_at is not None and not job.state.is_over:
            job.cancel()
        if not job.state.is_over:
            return {"next_try_at": _next_look(job.state), **_NO_TROUBLE}
        if job.state.status == "cancelled":
            return _cancelled()
        kept = [_fetched(dream, job, index) for index in range(dream.num_images)]
    except (gpu_server.JobNotFound, gpu_server.ResultExpired):
        # It has lost its data, or kept the pictures for too short a time: the same seed draws them again.
        return _drawn_anew(dream)
    state = job.state
    work_units = _work_units(state)
    cost = ledger.price_of(work_units)
    return {
        "status": Dream.Status.DONE,
        "finished_at": timezone.now(),
        "work_units": work_units,
        "cost": cost,
        "engine_s": None if state.timings is None else state.timings.total_s - state.timings.queue_s,
        "model": state.model,
        "is_prompt_cut": bool(state.prompt_truncated),
        "finish": _Finish(pictures=kept, cost=cost),
        **_NO_TROUBLE,
    }


def _fetched(dream: Dream, job: gpu_server.Job, index: int) -> Picture:
    """One picture, its files written. The lease begins anew, since several may take longer than one lease."""
    _renew_lease(dream)
    found = job.image(index)
    return pictures.kept(dream, index, pictures.Drawn(found.bytes, found.media_type, found.seed))


def _work_units(state: gpu_server.JobState) -> Decimal:
    # Whatever a server says: nobody is paid for a dream.
    return max(Decimal(str(state.work_units)).quantize(gpu_server.WORK_UNIT_PLACES), Decimal(0))


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
    """Retry with backoff, or fail: what an error means for a dream."""
    match error:
        case gpu_server.InvalidRequest() if error.code:  # else it was some proxy that refused it
            rules = "; ".join(f"{wrong.field} {wrong.rule}" for wrong in error.wrong_values)
            return _failed(error.code, words.of_failure("invalid_request", rules))
        case gpu_server.JobFailed():
            return _failed(error.code, words.of_failure(error.code))
        case inputs.InputLostError():
            return _failed("input_lost", words.INPUT_LOST)
        case _ if dream.cancel_requested_at is not None:
            # Its owner does not wait until the GPU server answers. Should the job go on there, nobody pays for it.
            return _cancelled()
        case _ if timezone.now() - dream.created_at > datetime.timedelta(
            seconds=dreams_settings.DREAMS_GIVE_UP_AFTER_S
        ):
            return _failed("given_up", words.GIVEN_UP)
        case gpu_server.SemanticBitError():
            logger.warning("dream %s: %s: %s", dream.uuid, type(error).__name__, error)
    pause_s = _pause_s(dream.tries_in_vain, getattr(error, "retry_after_s", None))
    is_busy = isinstance(error, gpu_server.ServerBusy | gpu_server.RateLimited)
    return {
        "tries_in_vain": dream.tries_in_vain + 1,
        "num_retries": dream.num_retries + 1,
        "next_try_at": timezone.now() + datetime.timedelta(seconds=pause_s),
        "trouble": words.in_a_moment(words.SERVER_BUSY if is_busy else words.SERVER_UNREACHABLE, pause_s),
    }


def _pause_s(tries_in_vain: int, retry_after_s: float | None) -> float:
    """Exponential backoff, of which half is chance, and never less than the GPU server asks for."""
    longest_s = dreams_settings.DREAMS_LONGEST_PAUSE_S
    limit_s = min(longest_s, _FIRST_PAUSE_S * 2.0 ** min(tries_in_vain, 20))
    return max(limit_s * random.uniform(0.5, 1.0), min(retry_after_s or 0.0, longest_s))  # noqa: S311 -- no secret


def _next_look(state: gpu_server.JobState) -> datetime.datetime:
    """When to look again at the latest: the watcher of a dream hurries it when it is done."""
    eta_s = _LONGEST_LOOK_S if state.eta_s is None else state.eta_s
    return timezone.now() + datetime.timedelta(seconds=min(max(eta_s, _SHORTEST_LOOK_S), _LONGEST_LOOK_S))


def _claimed(dream_id: int) -> Dream | None:
    """The dream, for this caller alone until its lease is over."""
    now = timezone.now()
    token = uuid.uuid4()
    is_mine = Dream.objects.filter(pk=dream_id).due(now).update(lease_token=token, lease_until=_lease_until(now))
    return Dream.objects.select_related("user").get(pk=dream_id) if is_mine else None


def _renew_lease(dream: Dream) -> None:
    mine = Dream.objects.filter(pk=dream.pk, lease_token=dream.lease_token).unfinished()
    if not mine.update(lease_until=_lease_until(timezone.now())):
        raise _LeaseLostError


def _lease_until(now: datetime.datetime) -> datetime.datetime:
    return now + datetime.timedelta(seconds=dreams_settings.DREAMS_LEASE_S)


class _LeaseLostError(Exception):
    """Another worker has the dream by now."""


def _write(dream: Dream, changes: _Changes) -> None:
    """Write what an advance has come to, unless another worker has taken its lease meanwhile."""
    finish: _Finish | None = changes.pop("finish", None)
    with transaction.atomic():
        if finish is not None:
            ledger.locked_budget(dream.user)
        mine = Dream.objects.filter(pk=dream.pk, lease_token=dream.lease_token).unfinished()
        if not mine.update(**changes, lease_token=None, lease_until=None):
            logger.warning("dream %s: its lease expired before the work was finished", dream.uuid)
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
