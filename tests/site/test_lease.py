"""A worker's lease on a dream: long enough for every answer, renewed while pictures are fetched."""

from __future__ import annotations

import time

import pytest
from django.utils import timezone
from semantic_bit_client import transport

from newdreamflow.dreams import advancing, pictures, services
from newdreamflow.dreams.conf import dreams_settings
from newdreamflow.dreams.models import Dream

pytestmark = pytest.mark.django_db(transaction=True)

WISH = services.Wish(prompt="a cat", width=64, height=64, num_inference_steps=2, num_images=4)


def until_drawn(dream, painter):
    advancing.advance(dream_id=dream.pk)
    while painter.images_in_flight:
        time.sleep(0.01)
    time.sleep(0.1)
    Dream.objects.filter(pk=dream.pk).update(next_try_at=timezone.now())


def test_a_lease_is_longer_than_one_answer_of_the_gpu_server_may_take():
    assert dreams_settings.DREAMS_LEASE_S > transport._LONGEST_ANSWER_S


def test_fetching_many_pictures_over_a_slow_line_keeps_the_lease(user, gpu_server, painter, settings, monkeypatch):
    """Four pictures of 0.4 s each with a lease of 1 s: nobody else may find the dream due meanwhile."""
    dream = services.submit(user=user, wish=WISH)
    until_drawn(dream, painter)
    settings.DREAMS_LEASE_S = 1.0
    kept, due = pictures.kept, []

    def slowly_kept(*arguments):
        time.sleep(0.4)
        due.extend(Dream.objects.due_pks(timezone.now(), 10))
        return kept(*arguments)

    monkeypatch.setattr(pictures, "kept", slowly_kept)
    advancing.advance(dream_id=dream.pk)
    dream.refresh_from_db()
    assert due == []
    assert (dream.status, dream.pictures.count()) == ("done", 4)


def test_a_worker_whose_lease_has_passed_on_fetches_no_more_pictures(user, gpu_server, painter, monkeypatch):
    dream = services.submit(user=user, wish=WISH)
    until_drawn(dream, painter)
    kept, fetched = pictures.kept, []

    def robbed(dream, index, drawn):
        fetched.append(index)
        Dream.objects.filter(pk=dream.pk).update(lease_token="0" * 32)
        return kept(dream, index, drawn)

    monkeypatch.setattr(pictures, "kept", robbed)
    advancing.advance(dream_id=dream.pk)
    dream.refresh_from_db()
    assert fetched == [0]
    assert dream.status == "drawing"
