"""Both runners as real processes, Celery on a real Redis: every dream is drawn once and paid for once."""

from __future__ import annotations

import datetime
import json
import shutil
import time

import pytest
from django.utils import timezone
from redis import Redis

from newdreamflow.dreams import services
from newdreamflow.dreams.models import LedgerEntry
from server.worker.fake_executor import FakeExecutor
from tests.site.processes import until_ended, worker
from tests.site.services import redis

pytestmark = pytest.mark.django_db(transaction=True)

WISH = services.Wish(prompt="a cat", width=64, height=64, num_inference_steps=4)


@pytest.fixture(scope="module")
def redis_url():
    """A real Redis, and our own messages going there."""
    if shutil.which("redis-server") is None:
        pytest.skip("Redis is not installed (apt-get install redis-server)")
    from newdreamflow.config.celery import app  # noqa: PLC0415 -- only where there is a broker

    with redis() as url:
        app.conf.broker_url = url
        yield url
        app.pool.force_close_all()


@pytest.fixture(params=["database", "celery"])
def broker(request, settings):
    """The runner's name and where its messages lie."""
    settings.DREAMS_RUNNER = request.param
    return request.param, "" if request.param == "database" else request.getfixturevalue("redis_url")


def charged(dream):
    return -sum(LedgerEntry.objects.filter(dream=dream).values_list("amount", flat=True))


def test_dreams_are_drawn_once_and_paid_for_once(broker, user, gpu_server, painter, tmp_path):
    with worker(tmp_path, *broker) as running:
        dreams = until_ended([services.submit(user=user, wish=WISH) for _ in range(6)], 40)
        assert [dream.status for dream in dreams] == ["done"] * 6, running.log
        assert all(charged(dream) == dream.cost > 0 for dream in dreams)
        assert len(painter.started) == 6
        assert running.stop() == 0, running.log


def test_a_worker_that_is_killed_is_followed_by_one_that_goes_on(broker, user, settings, serve, tmp_path):
    painter = FakeExecutor(step_s=0.1)
    settings.GPU_SERVER_URL = serve(painter).url
    with worker(tmp_path, *broker) as running:
        dreams = [services.submit(user=user, wish=WISH) for _ in range(4)]
        while not painter.started:
            time.sleep(0.02)
        running.kill()
        running.restart()
        dreams = until_ended(dreams, 60)
        assert [dream.status for dream in dreams] == ["done"] * 4, running.log
        assert all(charged(dream) == dream.cost > 0 for dream in dreams)
        assert len(painter.started) == 4


def test_a_dream_whose_message_was_lost_is_found_by_the_reaper(user, gpu_server, settings, tmp_path, redis_url):
    settings.DREAMS_RUNNER = "database"  # no message is sent from here
    dream = services.submit(user=user, wish=WISH)
    with worker(tmp_path, "celery", redis_url):
        assert until_ended([dream], 40)[0].status == "done"


def test_what_the_reaper_sends_once_more_expires_in_the_queue(user, redis_url, settings):
    """With the clock running and the workers away, the queue must not grow for ever."""
    from newdreamflow.dreams import tasks  # noqa: PLC0415 -- only where Celery is wanted

    settings.DREAMS_RUNNER = "database"  # no message is sent but the reaper's
    services.submit(user=user, wish=WISH)
    with Redis.from_url(redis_url) as queue:
        queue.flushdb()
        tasks.reap()
        tasks.reap()
        messages = [json.loads(message) for message in queue.lrange("celery", 0, -1)]
        queue.flushdb()
    assert len(messages) == 2
    for message in messages:
        expires = datetime.datetime.fromisoformat(message["headers"]["expires"])
        assert expires - timezone.now() <= datetime.timedelta(seconds=10)
