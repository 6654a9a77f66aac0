"""A dream's way from the wish to the picture, against a real GPU server with the fake engine."""

from __future__ import annotations

import contextlib
import datetime
import socket
import threading
import time
import uuid
from decimal import Decimal

import httpx2
import pytest
from django.core.files.storage import default_storage
from django.utils import timezone

from newdreamflow.dreams import advancing, erasing, ledger, services
from newdreamflow.dreams.models import Dream, LedgerEntry
from server.worker.fake_executor import FakeExecutor

pytestmark = pytest.mark.django_db(transaction=True)

START = Decimal(100)


@contextlib.contextmanager
def answering(answer):
    """A server that says the same to everybody."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)

        def answer_once():
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        thread = threading.Thread(target=answer_once)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def wish(**changes):
    return services.Wish(**({"prompt": "a cat", "width": 64, "height": 64, "num_inference_steps": 4} | changes))


def now_due(dream):
    """As if the time of its next try had come."""
    Dream.objects.filter(pk=dream.pk).update(next_try_at=timezone.now() - datetime.timedelta(seconds=1))


def advanced(dream, times=1):
    for _ in range(times):
        now_due(dream)
        advancing.advance(dream_id=dream.pk)
    return Dream.objects.get(pk=dream.pk)


def ended(dream, times=400):
    for _ in range(times):
        dream = advanced(dream)
        if dream.is_finished:
            return dream
    raise AssertionError(f"still {dream.status}: {dream.trouble}")


def entries(dream):
    return dict(LedgerEntry.objects.filter(dream=dream).values_list("kind", "amount"))


def cost_so_far(dream):
    return -sum(entries(dream).values())


def assert_nothing_charged(dream):
    assert cost_so_far(dream) == 0
    assert ledger.balance(dream.user) == START
    assert set(entries(dream)) == {"reserve", "release"}


def test_a_dream_is_drawn_kept_and_paid_for(user, gpu_server, painter):
    dream = services.submit(user=user, wish=wish(num_images=2, seed=7))
    assert ledger.balance(user) < START  # set aside at once
    dream = ended(dream)
    assert dream.status == "done"
    assert [picture.seed for picture in dream.pictures.all()] == [7, 8]
    for picture in dream.pictures.all():
        with picture.file.open() as file, picture.thumbnail.open() as thumbnail:
            assert file.read(4) == b"\x89PNG"
            assert thumbnail.read(12)[8:] == b"WEBP"
    assert dream.cost == ledger.price_of(dream.work_units) > 0
    assert cost_so_far(dream) == dream.cost
    assert ledger.balance(user) == START - dream.cost
    assert len(painter.started) == 1


def test_what_is_set_aside_is_what_the_gpu_server_asks_for(user, gpu_server):
    """The site's own estimate and the server's figure agree to the last unit, so nobody is surprised."""
    for changes in ({}, {"guidance_scale": 1.0}, {"num_images": 3}, {"width": 128, "num_inference_steps": 9}):
        dream = ended(services.submit(user=user, wish=wish(**changes)))
        assert dream.cost == -entries(dream)["reserve"], changes


def test_the_gpu_server_is_told_for_whom_it_draws(user, gpu_server, painter):
    ended(services.submit(user=user, wish=wish()))
    [job] = gpu_server.call(lambda: list(painter.started))
    assert job is not None
    [told] = httpx2.get(f"{gpu_server.url}/v1/jobs").json()["jobs"]
    assert told["user"] == str(user.pk)


def test_one_form_sent_twice_is_one_dream(user, gpu_server, painter):
    submission = uuid.uuid4()
    first = services.submit(user=user, wish=wish(), submission=submission)
    assert services.submit(user=user, wish=wish(), submission=submission) == first
    ended(first)
    assert services.submit(user=user, wish=wish(), submission=submission) == first
    assert len(painter.started) == 1
    assert Dream.objects.count() == 1


def test_without_budget_nothing_is_accepted(user, settings):
    settings.DREAMS_STARTING_BUDGET = Decimal(1)
    with pytest.raises(ledger.BudgetExceededError) as refused:
        services.submit(user=user, wish=wish(width=512, height=512, num_inference_steps=28, num_images=4))
    assert (refused.value.wanted, refused.value.left) == (8, 1)
    assert Dream.objects.count() == 0
    assert ledger.balance(user) == 1


def test_too_many_unfinished_dreams_are_refused(user, settings):
    settings.DREAMS_MAX_UNFINISHED = 2
    for _ in range(2):
        services.submit(user=user, wish=wish())
    with pytest.raises(services.TooManyDreamsError):
        services.submit(user=user, wish=wish())


# --- trouble ----------------------------------------------------------------------------------------------------------


def test_while_the_gpu_server_is_away_a_dream_waits_and_says_so(user, settings, serve, painter):
    dream = services.submit(user=user, wish=wish())
    dream = advanced(dream)
    assert dream.status == "waiting"
    assert dream.trouble.startswith("The GPU server cannot be reached. We try again in ")
    pauses = []
    for _ in range(6):
        dream = advanced(dream)
        pauses.append((dream.next_try_at - timezone.now()).total_seconds())
    assert pauses[-1] > 4 * pauses[0]  # it grows, though part of it is chance
    assert dream.num_retries == 7
    server = serve(painter)
    settings.GPU_SERVER_URL = server.url
    dream = ended(dream)
    assert (dream.status, dream.trouble, dream.tries_in_vain) == ("done", "", 0)
    assert dream.num_retries == 7


def test_what_a_dream_waits_is_never_longer_than_the_longest_pause(user, settings):
    settings.DREAMS_LONGEST_PAUSE_S = 3.0
    dream = advanced(services.submit(user=user, wish=wish()), times=9)
    assert (dream.next_try_at - timezone.now()).total_seconds() <= 3


def test_a_dream_that_cannot_be_drawn_for_too_long_fails_and_costs_nothing(user, settings):
    settings.DREAMS_GIVE_UP_AFTER_S = 0.0
    dream = advanced(services.submit(user=user, wish=wish()))
    assert (dream.status, dream.error_code) == ("failed", "given_up")
    assert_nothing_charged(dream)


def test_a_wish_that_the_gpu_server_refuses_fails_with_its_rule(user, gpu_server):
    dream = advanced(services.submit(user=user, wish=wish(width=72 + 4)))
    assert dream.status == "failed"
    assert "width" in dream.error
    assert_nothing_charged(dream)


def test_a_job_whose_data_the_gpu_server_lost_is_drawn_again(user, gpu_server, settings, serve):
    dream = advanced(services.submit(user=user, wish=wish(seed=5)))
    assert dream.status == "drawing"
    settings.GPU_SERVER_URL = serve(FakeExecutor()).url  # another one, with an empty store
    dream = ended(dream)
    assert (dream.status, dream.redraws) == ("done", 1)
    assert cost_so_far(dream) == dream.cost


def test_a_fault_of_ours_is_tried_again_and_told_in_words(user, gpu_server, monkeypatch, caplog):
    dream = services.submit(user=user, wish=wish())

    def broken(_dream):
        raise RuntimeError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr(advancing, "_send", broken)
        dream = advanced(dream)
    assert dream.status == "waiting"
    assert "bug" not in dream.trouble
    assert "could not be advanced" in caplog.text
    assert ended(dream).status == "done"


# --- cancelling and deleting ------------------------------------------------------------------------------------------


def test_a_dream_that_was_never_sent_is_cancelled_without_asking_anybody(user):
    dream = services.submit(user=user, wish=wish())
    services.cancel(dream=dream)
    dream = advanced(dream)
    assert dream.status == "cancelled"
    assert_nothing_charged(dream)


def test_a_dream_that_is_being_drawn_is_cancelled_at_the_gpu_server(user, settings, serve):
    painter = FakeExecutor(step_s=60)
    settings.GPU_SERVER_URL = serve(painter).url
    dream = advanced(services.submit(user=user, wish=wish()))
    services.cancel(dream=dream)
    dream = ended(dream)
    assert dream.status == "cancelled"
    assert_nothing_charged(dream)
    assert painter.images_in_flight == 0


def test_a_cancel_that_comes_too_late_leaves_the_picture_and_its_price(user, gpu_server, painter):
    dream = advanced(services.submit(user=user, wish=wish()))
    while painter.images_in_flight:
        time.sleep(0.01)
    time.sleep(0.2)
    services.cancel(dream=dream)
    dream = ended(dream)
    assert dream.status == "done"
    assert cost_so_far(dream) == dream.cost > 0


def test_a_cancel_does_not_wait_for_a_gpu_server_that_cannot_be_reached(user):
    dream = advanced(services.submit(user=user, wish=wish()))
    services.cancel(dream=dream)
    dream = advanced(dream)
    assert dream.status == "cancelled"
    assert_nothing_charged(dream)


def test_deleting_takes_wish_and_pictures_and_leaves_what_it_cost(user, gpu_server):
    dream = ended(services.submit(user=user, wish=wish(tags=("sea",), is_public=True)))
    names = [picture.file.name for picture in dream.pictures.all()]
    services.delete(dream=dream)
    dream.refresh_from_db()
    assert (dream.prompt, dream.is_public, dream.pictures.count(), dream.tags.count()) == ("", False, 0, 0)
    assert not any(default_storage.exists(name) for name in names)
    assert cost_so_far(dream) == dream.cost > 0
    assert not Dream.objects.visible_to(user).exists()


def test_deleting_a_dream_that_is_being_drawn_ends_it_first(user, settings, serve):
    settings.GPU_SERVER_URL = serve(FakeExecutor(step_s=60)).url
    dream = advanced(services.submit(user=user, wish=wish()))
    services.delete(dream=dream)
    dream = ended(dream)
    assert (dream.status, dream.prompt) == ("cancelled", "")
    assert_nothing_charged(dream)


# --- two at once ------------------------------------------------------------------------------------------------------


def test_whoever_lost_the_lease_writes_nothing(user, gpu_server, painter):
    dream = services.submit(user=user, wish=wish())
    slow = advancing._claimed(dream.pk)
    Dream.objects.filter(pk=dream.pk).update(lease_until=timezone.now() - datetime.timedelta(seconds=1))
    dream = ended(dream)
    advancing._write(slow, {"status": "failed", "finished_at": timezone.now(), "finish": advancing._Finish()})
    dream.refresh_from_db()
    assert dream.status == "done"
    assert cost_so_far(dream) == dream.cost
    assert len(painter.started) == 1


def test_a_dream_that_somebody_has_is_not_due(user, gpu_server):
    dream = services.submit(user=user, wish=wish())
    assert advancing._claimed(dream.pk) is not None
    assert advancing._claimed(dream.pk) is None
    advancing.advance(dream_id=dream.pk)
    dream.refresh_from_db()
    assert dream.status == "waiting"


def test_a_cancel_during_an_advance_is_seen_to_at_once(user, settings, serve, monkeypatch):
    settings.GPU_SERVER_URL = serve(FakeExecutor(step_s=60)).url
    dream = services.submit(user=user, wish=wish())
    send = advancing._send

    def cancelled_meanwhile(claimed):
        changes = send(claimed)
        services.cancel(dream=claimed)
        return changes

    monkeypatch.setattr(advancing, "_send", cancelled_meanwhile)
    advancing.advance(dream_id=dream.pk)
    dream.refresh_from_db()
    assert dream.status == "drawing"
    assert dream.next_try_at <= timezone.now()


# --- found by attacking it ------------------------------------------------------------------------------------------


def test_a_dream_cancelled_while_it_was_in_trouble_is_not_drawn_when_the_gpu_server_is_back(user, settings, serve):
    dream = advanced(services.submit(user=user, wish=wish(num_inference_steps=50)), times=2)
    assert dream.trouble
    painter = FakeExecutor(step_s=0.5)
    settings.GPU_SERVER_URL = serve(painter).url
    services.cancel(dream=dream)
    dream = advanced(dream)
    assert dream.status == "cancelled"
    assert_nothing_charged(dream)
    assert painter.images_in_flight == 0


def test_the_form_of_a_deleted_dream_sent_again_is_a_new_dream(user):
    submission = uuid.uuid4()
    first = services.submit(user=user, wish=wish(), submission=submission)
    services.delete(dream=first)
    assert services.submit(user=user, wish=wish(), submission=submission) != first


def test_what_a_sudden_end_kept_from_being_erased_is_erased_by_the_next_worker(user, gpu_server):
    dream = ended(services.submit(user=user, wish=wish()))
    [picture] = dream.pictures.all()
    Dream.objects.filter(pk=dream.pk).update(deleted_at=timezone.now())  # and then the process was killed
    erasing.erase_left_over()
    dream.refresh_from_db()
    assert (dream.prompt, dream.pictures.count(), default_storage.exists(picture.file.name)) == ("", 0, False)


def test_a_page_of_a_proxy_that_refuses_is_no_end(user, settings):
    """Such as plain HTTP to a TLS port: 400, and HTML."""
    with answering(b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nno") as url:
        settings.GPU_SERVER_URL = url
        dream = advanced(services.submit(user=user, wish=wish()))
    assert dream.status == "waiting"
    assert "cannot be reached" in dream.trouble
