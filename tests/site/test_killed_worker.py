"""A worker that is killed with -9 at every edge of a dream's life: each dream ends once and is charged once."""

from __future__ import annotations

import contextlib
import subprocess
import sys

import pytest
from django.conf import settings
from django.core.files.storage import default_storage
from django.db import connection
from django.utils import timezone

from newdreamflow.dreams import services
from newdreamflow.dreams.models import Dream, LedgerEntry
from tests.chaos.gateway import gateway
from tests.processes import REPOSITORY

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def real_gpu_server(tmp_path):
    with gateway(tmp_path, MODEL_ID="fake-engine:2") as server:
        settings.GPU_SERVER_URL = server.url
        yield server


@pytest.fixture
def doomed(real_gpu_server):
    """Advance a dream in a process that dies at an edge: `doomed(dream, edge)`; whether it died."""
    name = connection.settings_dict["NAME"]
    command = [sys.executable, "-m", "tests.site.doomed", str(name), str(settings.MEDIA_ROOT), real_gpu_server.url]
    with contextlib.ExitStack() as cleaning:
        process = cleaning.enter_context(
            subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        assert process.stdout.readline() == "ready\n"

        def advance(dream, edge):
            Dream.objects.filter(pk=dream.pk).update(next_try_at=timezone.now(), lease_until=None)
            process.stdin.write(f"{dream.pk} {edge}\n")
            process.stdin.flush()
            answer = int(process.stdout.readline())
            assert answer in {0, 9}
            return answer == 9

        yield advance


def finished(dream, doomed):
    for _ in range(10):
        dream.refresh_from_db()
        if dream.is_finished:
            return dream
        assert not doomed(dream, 0)
    raise AssertionError(f"still {dream.status}: {dream.trouble}")


def lives(user, doomed, prepare):
    """Every life of a dream whose worker dies at edge 1, 2, 3, ... until none is left to die at."""
    for edge in range(1, 200):
        dream = services.submit(
            user=user, wish=services.Wish(prompt="a cat", width=64, height=64, num_inference_steps=2, num_images=2)
        )
        prepare(dream)
        has_died = doomed(dream, edge)
        yield edge, finished(dream, doomed)
        if not has_died:
            return
    raise AssertionError("there is no end to the edges")


def balance_of(dream):
    return -sum(LedgerEntry.objects.filter(dream=dream).values_list("amount", flat=True))


def test_a_dream_whose_worker_is_killed_at_any_edge_is_done_once_and_charged_once(user, doomed, real_gpu_server):
    num_edges = 0
    for edge, dream in lives(user, doomed, prepare=lambda dream: None):
        assert dream.status == "done", edge
        assert balance_of(dream) == dream.cost > 0, edge
        assert [picture.index for picture in dream.pictures.all()] == [0, 1], edge
        folder = f"dreams/{dream.uuid.hex[:2]}/{dream.uuid}"
        assert len(default_storage.listdir(folder)[1]) == 4, edge  # two pictures and their small copies, no others
        num_edges = edge
    assert num_edges > 20
    jobs = real_gpu_server.get(f"/v1/jobs?limit=100&user={user.pk}").json()["jobs"]
    assert len(jobs) == Dream.objects.count()  # one drawing each


def test_a_dream_that_is_cancelled_while_workers_die_costs_nothing(user, doomed):
    for edge, dream in lives(user, doomed, prepare=lambda dream: services.cancel(dream=dream)):
        assert dream.status == "cancelled", edge
        assert balance_of(dream) == 0, edge
        assert dream.pictures.count() == 0, edge
