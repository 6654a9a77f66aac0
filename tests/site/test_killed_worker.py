"""A worker that is killed with -9 at every edge of a dream's life: it ends once, and is charged once or not at all."""

from __future__ import annotations

import datetime
import time
from collections import Counter
from decimal import Decimal

import httpx2
import pytest
from django.conf import settings as django_settings
from django.core.files.storage import default_storage
from django.db import connection
from django.utils import timezone

from engine.errors import DoesNotFitError
from newdreamflow.dreams import advancing, erasing, gpu_server, ledger, services
from newdreamflow.dreams.models import Dream, LedgerEntry
from server.worker.fake_executor import FakeExecutor
from tests.site.doomed import Walk, doomed

pytestmark = pytest.mark.django_db(transaction=True)

START = Decimal(100)

NOWHERE = "http://127.0.0.1:9"
"""A GPU server that is away."""


@pytest.fixture(scope="module")
def walked(django_db_setup):
    with doomed(str(connection.settings_dict["NAME"]), str(django_settings.MEDIA_ROOT)) as walked:
        yield walked


@pytest.fixture(scope="module")
def quick(module_serve):
    """A GPU server that has drawn before anybody looks."""
    return module_serve(FakeExecutor())


@pytest.fixture
def slow(quick):
    """The same while it is still drawing whenever anybody looks."""
    quick.call(quick.executor.hang)
    yield quick
    quick.call(quick.executor.wake)


@pytest.fixture
def lives(user, walked, settings):
    """Every life of a dream whose worker dies at edge 1, 2, 3, ... until none is left to die at.

    `lives(prepare, urls)` prepares a dream and has a worker advance it, once at each GPU server, to its end; some way
    only if there is a `then`. Yields it when it has ended, since another worker has done what was left to do.
    """

    class Lives:
        def __init__(self):
            self.edges = Counter()

        def __call__(self, prepare, urls, then=None, **wished):
            price = str(settings.DREAMS_PRICE_PER_WORK_UNIT)
            for edge in range(1, 100):
                settings.GPU_SERVER_URL = urls[0]
                dream = services.submit(user=user, wish=wish(**wished))
                prepare(dream)
                now_due(dream)
                fate = walked(Walk(dream_id=dream.pk, edge=edge, urls=urls, price=price))
                dream.refresh_from_db()
                if not fate.was_killed:
                    assert len(fate.edges) == edge - 1, "each of its edges has had its death"
                    assert dream.is_finished or then, f"not to its end: {dream.status}, {dream.trouble}"
                    self.edges = Counter(fate.edges)
                settings.GPU_SERVER_URL = then or urls[-1]
                erasing.erase_left_over()  # as every worker does when it starts
                dream = ended(dream)
                assert_settled(dream)
                yield dream
                if not fate.was_killed:
                    return
            raise AssertionError("there is no end to the edges")

        def assert_met(self, edges):
            """Among others, and as often at least."""
            assert self.edges >= Counter(edges.split())

    return Lives()


def wish(**changes):
    return services.Wish(**({"prompt": "a cat", "width": 64, "height": 64, "num_inference_steps": 2} | changes))


def now_due(dream):
    """As if the time of its next try had come, and the lease of whoever had it were over."""
    before = timezone.now() - datetime.timedelta(seconds=1)
    Dream.objects.filter(pk=dream.pk).update(next_try_at=before, lease_until=before)


def advanced(dream):
    now_due(dream)
    advancing.advance(dream_id=dream.pk)
    dream.refresh_from_db()
    return dream


def ended(dream):
    deadline = time.monotonic() + 30
    while not dream.is_finished:
        assert time.monotonic() < deadline, f"still {dream.status}: {dream.trouble}"
        advanced(dream)
    dream.refresh_from_db()
    return dream


def assert_settled(dream):
    """It has ended once, and nothing is left to be done or undone."""
    entries = dict(LedgerEntry.objects.filter(dream=dream).values_list("kind", "amount"))
    is_done = dream.status == "done"
    assert set(entries) == {"reserve", "settle" if is_done else "release"}
    assert -sum(entries.values()) == dream.cost
    assert dream.cost == (-entries["reserve"] if is_done else 0)
    assert ledger.balance(dream.user) == START - sum(Dream.objects.values_list("cost", flat=True))
    is_kept = is_done and dream.deleted_at is None
    num_pictures = dream.num_images if is_kept else 0
    assert [picture.index for picture in dream.pictures.all()] == list(range(num_pictures))
    assert len(files_of(dream)) == 2 * num_pictures  # their small copies too, and no others
    row = Dream.objects.filter(pk=dream.pk).values()
    before = row.get()
    advancing.advance(dream_id=dream.pk)
    assert row.get() == before
    assert LedgerEntry.objects.filter(dream=dream).count() == 2


def files_of(dream):
    return default_storage.listdir(dream.folder)[1] if default_storage.exists(dream.folder) else []


def jobs_at(server, user):
    return httpx2.get(f"{server.url}/v1/jobs?limit=100&user={user.pk}").json()["jobs"]


def waits(_dream):
    """Nobody has seen to it yet."""


def sent(dream):
    assert advanced(dream).status == "drawing"


def sent_by_one_who_died(dream):
    """The GPU server has it, and nobody has written that down."""
    advancing._send(advancing._claimed(dream.pk))


def lost(dream):
    """The GPU server has had it, and knows nothing of it any more."""
    Dream.objects.filter(pk=dream.pk).update(status="drawing", remote_job_id="0" * 16, sent_at=timezone.now())


def drawn(dream):
    sent(dream)
    gpu_server.client().job(dream.remote_job_id).wait(timeout_s=30)


def half_kept(dream):
    """Its pictures have been fetched, and nobody has written that down."""
    drawn(dream)
    now_due(dream)
    advancing._look(advancing._claimed(dream.pk))
    assert len(files_of(dream)) == 2


# --- drawn ------------------------------------------------------------------------------------------------------------


def test_a_dream_is_done_once_and_charged_once(user, lives, quick):
    for dream in lives(waits, [quick.url] * 2, num_images=2):
        assert (dream.status, dream.redraws, dream.cost > 0) == ("done", 0, True)
    lives.assert_met("begin write submit write job write image _save _save write image _save _save uncommitted commit")
    assert len(jobs_at(quick, user)) == Dream.objects.count()  # one drawing each


def test_a_dream_that_the_gpu_server_lost_is_drawn_anew_once_and_charged_once(user, lives, quick):
    for dream in lives(lost, [quick.url] * 3):
        assert (dream.status, dream.redraws, dream.cost > 0) == ("done", 1, True)
    lives.assert_met("begin write job submit job write image _save _save uncommitted commit")
    assert len(jobs_at(quick, user)) == Dream.objects.count()


def test_a_dream_whose_key_the_gpu_server_knows_from_another_life_is_done_once_and_charged_once(user, lives, quick):
    def taken(dream):
        gpu_server.client().submit("a dog", idempotency_key=dream.idempotency_key, user="another", width=64, height=64)

    for dream in lives(taken, [quick.url], then=quick.url):
        assert (dream.status, dream.redraws, dream.cost > 0) == ("done", 1, True)
    lives.assert_met("begin write submit uncommitted commit")
    assert len(jobs_at(quick, user)) == Dream.objects.count()


@pytest.mark.parametrize("prepare", [waits, sent, half_kept])
def test_a_dream_whose_gpu_server_was_away_for_a_while_is_done_once_and_charged_once(
    user, lives, quick, settings, prepare
):
    def while_it_was_there(dream):
        settings.GPU_SERVER_URL = quick.url
        prepare(dream)

    back_again = [quick.url] * 2 if prepare is waits else []
    for dream in lives(while_it_was_there, [NOWHERE, *back_again], then=quick.url):
        assert (dream.status, dream.redraws, dream.cost > 0) == ("done", 0, True)
        assert (dream.trouble, dream.tries_in_vain) == ("", 0)
    assert dream.num_retries == 1  # of the last one, whose worker did not die
    lives.assert_met(f"begin write {'submit' if prepare is waits else 'job'} uncommitted commit")
    assert len(jobs_at(quick, user)) == Dream.objects.count()


# --- failed -----------------------------------------------------------------------------------------------------------


def test_a_wish_that_the_gpu_server_refuses_fails_once_and_costs_nothing(user, lives, quick):
    for dream in lives(waits, [quick.url], width=68):
        assert (dream.status, "width" in dream.error) == ("failed", True)
    lives.assert_met("begin write submit uncommitted commit")
    assert jobs_at(quick, user) == []


def test_a_dream_that_could_not_be_drawn_fails_once_and_costs_nothing(user, lives, quick):
    def doomed_itself(_dream):
        quick.call(quick.executor.fail_next, DoesNotFitError("one picture needs 9 GiB, and the device has 8"))

    for dream in lives(doomed_itself, [quick.url] * 2):
        assert (dream.status, dream.error_code) == ("failed", "does_not_fit")
    lives.assert_met("begin write submit job uncommitted commit")
    assert len(jobs_at(quick, user)) == Dream.objects.count()


def test_a_dream_that_is_lost_again_and_again_fails_once_and_costs_nothing(user, lives, quick):
    def often_lost(dream):
        lost(dream)
        Dream.objects.filter(pk=dream.pk).update(redraws=5)

    for dream in lives(often_lost, [quick.url]):
        assert (dream.status, dream.error_code) == ("failed", "lost")
    lives.assert_met("begin write uncommitted commit")
    assert jobs_at(quick, user) == []


def test_a_dream_whose_gpu_server_stays_away_fails_once_and_costs_nothing(user, lives):
    def long_ago(dream):
        Dream.objects.filter(pk=dream.pk).update(created_at=timezone.now() - datetime.timedelta(days=2))

    for dream in lives(long_ago, [NOWHERE]):
        assert (dream.status, dream.error_code) == ("failed", "given_up")
    lives.assert_met("begin write submit uncommitted commit")


# --- cancelled and deleted --------------------------------------------------------------------------------------------

ENDS = pytest.mark.parametrize("end", [services.cancel, services.delete])
"""Whoever deletes a dream that is being drawn cancels it, and nothing is left of it."""


def assert_gone(dream, end):
    is_deleted = end is services.delete
    assert (dream.prompt == "", dream.deleted_at is not None) == (is_deleted, is_deleted)


@ENDS
def test_a_dream_cancelled_before_it_was_sent_costs_nothing(user, lives, quick, end):
    for dream in lives(lambda dream: end(dream=dream), [quick.url]):
        assert dream.status == "cancelled"
        assert_gone(dream, end)
    lives.assert_met("begin write uncommitted commit")
    assert jobs_at(quick, user) == []


@ENDS
@pytest.mark.parametrize("prepare", [sent, sent_by_one_who_died])
def test_a_dream_cancelled_while_it_is_drawn_costs_nothing(user, lives, slow, end, prepare):
    def unwanted(dream):
        prepare(dream)
        end(dream=dream)

    for dream in lives(unwanted, [slow.url] * 2):
        assert dream.status == "cancelled"
        assert_gone(dream, end)
    lives.assert_met("begin write cancel uncommitted commit")
    assert {job["status"] for job in jobs_at(slow, user)} == {"cancelled"}
    assert len(jobs_at(slow, user)) == Dream.objects.count()


@ENDS
def test_a_dream_cancelled_when_it_is_drawn_already_is_charged_once(user, lives, quick, end):
    def unwanted_too_late(dream):
        drawn(dream)
        end(dream=dream)

    for dream in lives(unwanted_too_late, [quick.url]):
        assert (dream.status, dream.cost > 0) == ("done", True)
        assert_gone(dream, end)
    lives.assert_met("begin job write image write _save _save uncommitted commit")
    assert lives.edges["delete"] == (4 if end is services.delete else 2)  # before each is written, and for good
    assert len(jobs_at(quick, user)) == Dream.objects.count()


@ENDS
@pytest.mark.parametrize("prepare", [sent, half_kept])
def test_a_dream_cancelled_while_the_gpu_server_is_away_costs_nothing(user, lives, quick, settings, end, prepare):
    def unwanted(dream):
        settings.GPU_SERVER_URL = quick.url
        prepare(dream)
        end(dream=dream)

    for dream in lives(unwanted, [NOWHERE]):
        assert dream.status == "cancelled"
        assert_gone(dream, end)
    lives.assert_met("begin write uncommitted commit")
