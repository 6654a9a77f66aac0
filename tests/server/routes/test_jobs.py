"""`/v1/jobs` on its good days and its bad ones: accepted, followed, listed, cancelled, repeated, kept."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import re
from datetime import datetime

import httpx2
import pytest
from PIL import Image

from engine.errors import DoesNotFitError
from server.worker.fake_executor import FakeExecutor

PROMPT = {"prompt": "a cat", "num_inference_steps": 4}
TERMINAL = {"done", "failed", "cancelled", "dead"}


@pytest.fixture
async def client():
    async with httpx2.AsyncClient(timeout=20, limits=httpx2.Limits(max_connections=None)) as client:
        yield client


async def submitted(running, client, headers=None, **wish):
    answer = await client.post(f"{running.url}/v1/jobs", json=PROMPT | wish, headers=headers or {})
    assert answer.status_code in {200, 202}, answer.text
    return answer.json()


async def shown(running, client, job_id):
    answer = await client.get(f"{running.url}/v1/jobs/{job_id}")
    assert answer.status_code == 200
    return answer.json()


async def ended(running, client, job_id, timeout_s=10.0):
    async with asyncio.timeout(timeout_s):
        while (job := await shown(running, client, job_id))["status"] not in TERMINAL:
            await asyncio.sleep(0.01)
    return job


async def snapshots(running, client, job_id):
    """Every message of a job's event stream, until it ends: (id, data)."""
    messages = []
    stream_of = client.stream("GET", f"{running.url}/v1/jobs/{job_id}/events")
    # Far below the 15 s after which a silent stream would look again by itself.
    async with asyncio.timeout(10), stream_of as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        fields = {}
        async for line in stream.aiter_lines():
            name, _, value = line.partition(": ")
            if line and name:
                fields[name] = value
            elif fields:
                assert fields["event"] == "snapshot"
                messages.append((fields["id"], json.loads(fields["data"])))
                fields = {}
    return messages


async def test_a_job_is_accepted_drawn_and_kept(serve, client):
    running = serve()
    answer = await client.post(f"{running.url}/v1/jobs", json=PROMPT | {"seed": 7, "num_images": 2, "user": "ada"})
    assert answer.status_code == 202
    job = answer.json()
    assert re.fullmatch("[0-9a-f]{16}", job["id"])
    assert answer.headers["location"] == job["links"]["self"] == f"/v1/jobs/{job['id']}"
    assert job["params"]["seed"] == 7
    assert job["work_units"] == pytest.approx(2 * 4 / 28)
    assert datetime.fromisoformat(job["created_at"]).utcoffset().total_seconds() == 0
    done = await ended(running, client, job["id"])
    assert done["status"] == "done"
    assert (done["step"], done["steps"], done["attempt"], done["user"]) == (8, 8, 1, "ada")
    assert [image["seed"] for image in done["images"]] == [7, 8]
    assert done["error"] is None
    assert done["prompt_truncated"] is False
    for image in done["images"]:
        file = await client.get(running.url + image["url"])
        alone = await client.post(f"{running.url}/generate", json=PROMPT | {"seed": image["seed"]})
        assert file.content == alone.content
        assert file.headers["content-type"] == image["media_type"] == "image/png"
        assert len(file.content) == image["bytes"]


async def test_a_seed_that_was_not_given_is_drawn_at_acceptance_and_told(serve, client):
    running = serve(FakeExecutor(load_s=60))
    job = await submitted(running, client)
    assert 0 <= job["params"]["seed"] < 2**32
    assert (await shown(running, client, job["id"]))["params"]["seed"] == job["params"]["seed"]


async def test_a_picture_has_an_etag_and_a_thumbnail(serve, client):
    running = serve()
    job = await ended(running, client, (await submitted(running, client))["id"])
    url = running.url + job["images"][0]["url"]
    first, again = await client.get(url), await client.get(url)
    assert first.content == again.content
    assert first.headers["etag"] == f'"{hashlib.sha256(first.content).hexdigest()[:32]}"'
    unchanged = await client.get(url, headers={"If-None-Match": first.headers["etag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert (await client.get(url, headers={"If-None-Match": "*"})).status_code == 304
    small = await client.get(running.url + job["images"][0]["thumbnail_url"])
    assert small.headers["etag"] != first.headers["etag"]
    with Image.open(io.BytesIO(small.content)) as picture:
        assert picture.format == "WEBP"
        assert max(picture.size) <= 256


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/jobs/0123456789abcdef", 404, "job_not_found"),
        ("/v1/jobs/0123456789abcdef/events", 404, "job_not_found"),
        ("/v1/jobs/0123456789abcdef/images/0", 404, "job_not_found"),
        ("/v1/jobs/..%2f..%2fetc", 404, "not_found"),
        ("/v1/jobs/nonsense", 422, "invalid_request"),
        ("/v1/jobs?limit=0", 422, "invalid_request"),
        ("/v1/jobs?status=finished", 422, "invalid_request"),
        ("/v1/jobs?cursor=!!", 422, "invalid_request"),
        ("/v1/queue?height=13", 422, "invalid_request"),
    ],
)
async def test_what_is_not_there_or_cannot_be_is_a_problem_document(server, client, path, status, code):
    answer = await client.get(server.url + path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_a_job_that_is_not_done_has_no_pictures_yet(serve, client):
    running = serve(FakeExecutor(load_s=60))
    job = await submitted(running, client)
    answer = await client.get(f"{running.url}/v1/jobs/{job['id']}/images/0")
    assert (answer.status_code, answer.json()["code"]) == (409, "job_not_done")


async def test_a_picture_beyond_the_last_is_404(serve, client):
    running = serve()
    job = await ended(running, client, (await submitted(running, client))["id"])
    answer = await client.get(f"{running.url}/v1/jobs/{job['id']}/images/1")
    assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")


async def test_waiting_jobs_know_their_position_and_their_eta(serve, client):
    running = serve(FakeExecutor(step_s=0.05, max_images_in_flight=1))
    await ended(running, client, (await submitted(running, client))["id"])  # teaches the cost
    jobs = [await submitted(running, client, num_inference_steps=20) for _ in range(4)]
    await asyncio.sleep(0.1)
    seen = [await shown(running, client, job["id"]) for job in jobs]
    assert [job["status"] for job in seen] == ["running", "queued", "queued", "queued"]
    assert [job["queue_position"] for job in seen] == [None, 0, 1, 2]
    etas = [job["eta_s"] for job in seen]
    assert etas == sorted(etas)
    assert 3 < etas[3] < 6  # four jobs of a second each
    queue = (await client.get(f"{running.url}/v1/queue")).json()
    assert (queue["waiting"], queue["running"], queue["accepting"]) == (3, 1, True)
    assert queue["eta_s"] > etas[3]


async def test_events_are_whole_snapshots_and_end_with_the_terminal_one(serve, client):
    running = serve(FakeExecutor(step_s=0.03))
    job = await submitted(running, client, num_inference_steps=8)
    messages = await snapshots(running, client, job["id"])
    numbers = [tuple(int(part) for part in number.split(".")) for number, _ in messages]
    assert numbers == sorted(numbers)
    assert {data["job_id"] for _, data in messages} == {job["id"]}
    assert len({data["step"] for _, data in messages}) >= 5
    last = messages[-1][1]
    assert (last["status"], last["step"], last["steps"]) == ("done", 8, 8)
    assert last["images"][0]["url"].startswith(f"/v1/jobs/{job['id']}")
    # A reconnect after the end gets the terminal snapshot alone.
    assert [data["status"] for _, data in await snapshots(running, client, job["id"])] == ["done"]


async def test_a_cancelled_job_stops_before_its_next_step_and_stays_cancelled(serve, client):
    running = serve(FakeExecutor(step_s=0.05, max_images_in_flight=1))
    job = await submitted(running, client, num_inference_steps=100)
    waiting = await submitted(running, client)
    await asyncio.sleep(0.2)
    following = asyncio.create_task(snapshots(running, client, job["id"]))
    await asyncio.sleep(0.05)
    cancelled = await client.post(running.url + job["links"]["cancel"])
    assert cancelled.json()["status"] == "cancelled"
    steps = running.executor.steps_taken
    assert (await following)[-1][1]["status"] == "cancelled"
    assert (await ended(running, client, waiting["id"]))["status"] == "done"
    assert running.executor.steps_taken <= steps + 1 + 4
    again = await client.post(running.url + job["links"]["cancel"])
    assert again.json() == cancelled.json()


async def test_cancelling_a_waiting_job_never_draws_it(serve, client):
    running = serve(FakeExecutor(load_s=1.5))  # long enough to post and cancel, however busy the machine is
    job = await submitted(running, client)
    assert (await client.post(running.url + job["links"]["cancel"])).json()["status"] == "cancelled"
    done = await ended(running, client, (await submitted(running, client))["id"])
    assert done["status"] == "done"
    assert [started.id for started in running.executor.started] == [done["id"]]


async def test_jobs_are_listed_newest_first_page_by_page(serve, client):
    running = serve()
    jobs = [await submitted(running, client, user=("ada", "bob")[index % 2]) for index in range(7)]
    for job in jobs:
        await ended(running, client, job["id"])
    seen, cursor = [], None
    while True:
        query = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = (await client.get(f"{running.url}/v1/jobs", params=query)).json()
        seen += [job["id"] for job in page["jobs"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        await submitted(running, client)  # newcomers do not shift the pages
    assert seen == [job["id"] for job in reversed(jobs)]
    adas = (await client.get(f"{running.url}/v1/jobs", params={"user": "ada"})).json()["jobs"]
    assert {job["user"] for job in adas} == {"ada"}
    assert (await client.get(f"{running.url}/v1/jobs", params={"status": "dead"})).json()["jobs"] == []


async def test_one_key_is_one_job_however_often_it_is_sent(serve, client):
    running = serve(FakeExecutor(step_s=0.01))
    key = {"Idempotency-Key": "k-1"}
    jobs = await asyncio.gather(*(submitted(running, client, key) for _ in range(50)))
    assert len({job["id"] for job in jobs}) == 1
    assert len({job["params"]["seed"] for job in jobs}) == 1
    await ended(running, client, jobs[0]["id"])
    repeat = await client.post(f"{running.url}/v1/jobs", json=PROMPT, headers=key)
    assert (repeat.status_code, repeat.json()["status"]) == (200, "done")
    other = await client.post(f"{running.url}/v1/jobs", json=PROMPT | {"seed": 1}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert len(running.executor.started) == 1


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "ä"])
async def test_a_key_that_cannot_be_one_is_refused(server, client, key):
    answer = await client.post(f"{server.url}/v1/jobs", json=PROMPT, headers={"Idempotency-Key": key.encode()})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_idempotency_key")


async def test_a_hang_up_and_a_retry_with_the_key_are_one_drawing(serve, client):
    running = serve(FakeExecutor(step_s=0.05))
    key = {"Idempotency-Key": "k-2"}
    with pytest.raises(httpx2.TimeoutException):
        await client.post(f"{running.url}/generate", json=PROMPT, headers=key, timeout=0.1)
    picture = await client.post(f"{running.url}/generate", json=PROMPT, headers=key)
    assert picture.status_code == 200
    again = await client.post(f"{running.url}/generate", json=PROMPT, headers=key)
    assert again.content == picture.content
    assert again.headers["x-seed"] == picture.headers["x-seed"]
    assert len(running.executor.started) == 1


async def test_with_a_key_a_slow_drawing_is_202_and_goes_on(serve, client):
    running = serve(FakeExecutor(step_s=0.3))
    headers = {"Idempotency-Key": "k-3", "Prefer": "wait=1"}
    answer = await client.post(f"{running.url}/generate", json=PROMPT, headers=headers)
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (await ended(running, client, job["id"]))["status"] == "done"


async def test_a_repeat_of_a_finished_job_has_its_picture_even_without_any_wait(serve, client):
    running = serve()
    key = {"Idempotency-Key": "k-6"}
    picture = await client.post(f"{running.url}/generate", json=PROMPT, headers=key)
    again = await client.post(f"{running.url}/generate", json=PROMPT, headers=key | {"Prefer": "wait=0"})
    assert (again.status_code, again.content) == (200, picture.content)


async def test_a_repeat_that_wants_another_format_is_told_that_it_cannot_have_it(serve, client):
    running = serve()
    key = {"Idempotency-Key": "k-7"}
    first = await client.post(f"{running.url}/generate", json=PROMPT, headers=key | {"Accept": "image/webp"})
    assert first.headers["content-type"] == "image/webp"
    other = await client.post(f"{running.url}/generate", json=PROMPT, headers=key | {"Accept": "image/png"})
    assert (other.status_code, other.json()["code"]) == (406, "not_acceptable")


async def test_a_full_queue_still_answers_a_repeat(serve, client):
    running = serve(FakeExecutor(load_s=60), max_queued_requests=1)
    key = {"Idempotency-Key": "k-4"}
    job = await submitted(running, client, key)
    refused = await client.post(f"{running.url}/v1/jobs", json=PROMPT)
    assert (refused.status_code, refused.json()["code"]) == (503, "queue_full")
    assert (await submitted(running, client, key))["id"] == job["id"]


async def test_a_refusal_counts_the_jobs_that_are_being_accepted_at_that_moment(serve, client):
    running = serve(FakeExecutor(load_s=60), max_queued_requests=2)
    answers = await asyncio.gather(*(client.post(f"{running.url}/v1/jobs", json=PROMPT) for _ in range(8)))
    refusals = [answer.json()["detail"] for answer in answers if answer.status_code == 503]
    assert refusals == ["the queue is full (2 jobs waiting)"] * 6


async def test_a_job_that_the_engine_cannot_draw_fails_with_its_code(serve, client):
    running = serve()
    running.call(running.executor.fail_next, DoesNotFitError("too large for the device"))
    job = await ended(running, client, (await submitted(running, client))["id"])
    assert (job["status"], job["error"]["code"]) == ("failed", "does_not_fit")
    key = {"Idempotency-Key": "k-5"}
    running.call(running.executor.fail_next, DoesNotFitError("too large for the device"))
    for _ in range(2):
        answer = await client.post(f"{running.url}/generate", json=PROMPT, headers=key)
        assert (answer.status_code, answer.json()["code"]) == (422, "does_not_fit")


async def test_whoever_has_no_admin_key_may_not_requeue(server, client):
    answer = await client.post(f"{server.url}/v1/jobs/0123456789abcdef/requeue")
    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")
