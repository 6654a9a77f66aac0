"""The site when its GPU server dies or answers through a bad proxy: every dream ends, and is paid for once."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from django.conf import settings
from django.contrib.auth import get_user_model

from newdreamflow.dreams import ledger, services
from newdreamflow.dreams.models import Dream, LedgerEntry, Picture
from server.worker.fake_executor import FakeExecutor
from tests.chaos.gateway import gateway, until
from tests.client.proxy import by_chance, proxied
from tests.site.conftest import closed_clients, prices  # noqa: F401 -- fixtures of the site's own tests
from tests.site.processes import until_ended, worker

pytestmark = pytest.mark.django_db(transaction=True)

AWAY_S = 30.0
WISH = services.Wish(prompt="a cat", width=64, height=64, num_inference_steps=4)


@pytest.fixture
def user(db):
    return get_user_model().objects.create_user("ada", "ada@example.org", "correct horse")


def assert_balanced(dreams):
    """Each dream costs what it should, or nothing; and the user's credits are what is left."""
    for dream in dreams:
        entries = LedgerEntry.objects.filter(dream=dream)
        assert -sum(entry.amount for entry in entries) == dream.cost
        assert {entry.kind for entry in entries} == {"reserve", "settle" if dream.status == "done" else "release"}
    user = dreams[0].user
    assert ledger.balance(user) == 100 - sum(dream.cost for dream in Dream.objects.filter(user=user))


def kill_mid_dream(server, dream):
    """Kill the GPU server while it draws; return 30 s later, when the dream's page has said so meanwhile."""
    job_id = until(lambda: Dream.objects.get(pk=dream.pk).remote_job_id, 30, "sent")
    until(lambda: server.job(job_id)["step"] > 1, 30, "begun")
    server.kill()
    killed_at = time.monotonic()
    until(lambda: "cannot be reached" in Dream.objects.get(pk=dream.pk).trouble, 15, "known to be in trouble")
    time.sleep(AWAY_S - (time.monotonic() - killed_at))


def test_a_dream_whose_gpu_server_is_killed_finishes_by_itself_and_is_charged_once(user, tmp_path, rounds, report):
    for _ in range(rounds(1, 3)):
        with gateway(tmp_path, MODEL_ID="fake-engine:100") as server:
            settings.GPU_SERVER_URL = server.url
            port = server.url.rpartition(":")[2]
            with worker(tmp_path, "database", lease_s=3) as running:
                wish = services.Wish(prompt="a cat", width=64, height=64, num_inference_steps=20)
                dream = services.submit(user=user, wish=wish)
                kill_mid_dream(server, dream)
                with gateway(tmp_path, MODEL_ID="fake-engine:100", PORT=port) as back:
                    began = time.monotonic()
                    [dream] = until_ended([dream], 90)
                    assert (dream.status, dream.redraws) == ("done", 0), running.log
                    assert back.job(dream.remote_job_id)["attempt"] == 2
                    jobs = back.get("/v1/jobs").json()["jobs"]
        assert dream.pictures.count() == 1
        assert Counter(job["user"] for job in jobs)[str(user.pk)] == Dream.objects.count()
        assert_balanced([dream])
        report(
            f"site: GPU server away for {AWAY_S:.0f} s, dream done after its return",
            f"{time.monotonic() - began:.1f} s",
        )


def test_behind_a_bad_proxy_every_dream_ends_with_pictures_or_a_reason(user, tmp_path, serve, rounds, report):
    number = rounds(30, 300)
    painter = FakeExecutor(step_s=0.002)
    server = serve(painter, max_queued_requests=1000)
    settings.DREAMS_MAX_UNFINISHED = number
    with proxied(server.url, by_chance(3, 0.25, seconds=5.0)) as proxy:
        settings.GPU_SERVER_URL = proxy.url
        with worker(tmp_path, "database", lease_s=20) as running:
            dreams = [services.submit(user=user, wish=WISH) for _ in range(number)]
            dreams = until_ended(dreams, 120 + 3 * number)
            log = running.log
    assert "Traceback" not in log, log
    assert all(dream.status == "done" or dream.error for dream in dreams)
    done = [dream for dream in dreams if dream.status == "done"]
    assert len(done) == number, [dream.error for dream in dreams if dream.status != "done"]
    for dream in done:
        [picture] = Picture.objects.filter(dream=dream)
        assert picture.seed == dream.seed
        with picture.file.open() as file:
            assert len(file.read()) == picture.num_bytes
    drawn = Counter(job.params.seed for job in painter.started)
    assert {seed: times for seed, times in drawn.items() if times > 1} == {}
    assert_balanced(dreams)
    faults = sum(1 for seen in proxy.seen if seen.fault)
    retries = sum(dream.num_retries for dream in dreams)
    report("site: dreams behind a bad proxy", f"{len(done)} of {number} done, {faults} faults, {retries} retries")
    report("site: pictures drawn twice, entries that do not balance", "0, 0", "0, 0")
