"""A dream's server-sent events, and asking again and again: at once, to the end, for its owner, and never for ever."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from contextlib import aclosing, asynccontextmanager

import httpx2
import pytest
import uvicorn
from asgiref.sync import sync_to_async
from django.db import InterfaceError
from django.test import AsyncClient
from django.urls import reverse

from newdreamflow.config.asgi import application
from newdreamflow.dreams import advancing, gpu_server, services, watching
from newdreamflow.dreams.events import events_of
from newdreamflow.dreams.gpu_server import Progress
from newdreamflow.dreams.models import Dream
from newdreamflow.dreams.worker import DreamWorker
from server.draining_server import bound_socket
from server.worker.fake_executor import FakeExecutor
from tests.site.dreaming import done, waiting

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def dream_worker():
    """The background, in a thread."""
    worker = DreamWorker(num_threads=2)
    thread = threading.Thread(target=worker.run)
    thread.start()
    yield worker
    worker.stop()
    thread.join(20)
    assert not thread.is_alive()


def snapshots_in(stream):
    """The data of the events of a stream's text."""
    lines = stream.decode().splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


async def told(dream, **limits):
    """All that is told about a dream, until its stream ends; each as (seconds since the start, snapshot)."""
    begun = time.monotonic()
    found = []
    async with aclosing(events_of(dream, **limits)) as events:
        async for event in events:
            found += [(time.monotonic() - begun, snapshot) for snapshot in snapshots_in(event)]
    return found


async def in_database(function, *arguments, **named):
    return await sync_to_async(function, thread_sensitive=False)(*arguments, **named)


async def test_a_dream_is_followed_from_the_wish_to_the_picture(user, settings, serve, dream_worker):
    settings.GPU_SERVER_URL = serve(FakeExecutor(step_s=0.05)).url
    dream = await in_database(waiting, user, num_inference_steps=20)
    found = await told(dream)
    snapshots = [snapshot for _, snapshot in found]
    assert found[0][0] < 1
    assert snapshots[0]["status"] == "waiting"
    assert snapshots[0]["words"] == "Waiting for the GPU server…"
    steps = [snapshot["step"] for snapshot in snapshots if snapshot["status"] == "drawing"]
    assert steps == sorted(steps)
    assert len(set(steps)) > 2
    assert any(snapshot["words"].startswith("Step ") for snapshot in snapshots)
    assert any((snapshot["preview"] or "").startswith("data:image/jpeg;base64,") for snapshot in snapshots)
    last = snapshots[-1]
    assert (last["status"], last["is_finished"], last["preview"]) == ("done", True, None)
    assert last["pictures"] == [
        {
            "url": reverse("dreams:picture", args=[dream.uuid, 0]),
            "thumbnail": reverse("dreams:thumbnail", args=[dream.uuid, 0]),
        }
    ]
    assert [snapshot["is_finished"] for snapshot in snapshots].count(True) == 1


async def test_the_end_is_fetched_as_soon_as_it_is_seen(user, settings, serve, dream_worker, monkeypatch):
    """Whoever watches does not wait for the background's next look, which is seconds away."""
    monkeypatch.setattr(advancing, "_SHORTEST_LOOK_S", 30.0)
    monkeypatch.setattr(advancing, "_LONGEST_LOOK_S", 30.0)
    settings.GPU_SERVER_URL = serve(FakeExecutor(step_s=0.01)).url
    found = await told(await in_database(waiting, user))
    assert found[-1][1]["status"] == "done"
    assert found[-1][0] < 10


async def test_a_hurry_that_is_lost_is_made_good(user, settings, serve, dream_worker, monkeypatch):
    """Whoever advances a dream while it is hurried writes a later time over it."""
    monkeypatch.setattr(advancing, "_SHORTEST_LOOK_S", 30.0)
    monkeypatch.setattr(advancing, "_LONGEST_LOOK_S", 30.0)
    hurry, hurries = services.hurry, []

    def lost(*, dream):
        hurries.append(dream)
        if len(hurries) > 2:
            hurry(dream=dream)

    monkeypatch.setattr(services, "hurry", lost)
    settings.GPU_SERVER_URL = serve(FakeExecutor(step_s=0.001)).url
    found = await told(await in_database(waiting, user))
    assert found[-1][1]["status"] == "done"
    assert len(hurries) == 3


async def test_trouble_is_told_in_words_and_passes(user, settings, serve, dream_worker):
    dream = await in_database(waiting, user)  # nobody is at the GPU server's address
    found = []
    async with aclosing(events_of(dream)) as events:
        async for event in events:
            for snapshot in snapshots_in(event):
                if snapshot["trouble"] and not any(before["trouble"] for before in found):
                    settings.GPU_SERVER_URL = (await asyncio.to_thread(serve, FakeExecutor(step_s=0.001))).url
                found.append(snapshot)
    [trouble, *_] = [snapshot for snapshot in found if snapshot["trouble"]]
    assert trouble["words"].startswith("The GPU server cannot be reached. We try again in ")
    assert (found[-1]["status"], found[-1]["trouble"]) == ("done", "")


async def test_of_a_job_that_the_gpu_server_lost_nothing_is_told_any_more(user, monkeypatch):
    async def follow(*, dream):
        if dream.remote_job_id == "lost":
            yield Progress(
                "lost", "running", 1, step=9, steps=28, queue_position=None, eta_s=3.0, preview=b"half a cat"
            )
        await asyncio.Event().wait()

    monkeypatch.setattr(gpu_server, "follow", follow)
    dream = await in_database(waiting, user, status="drawing", remote_job_id="lost")
    found = []
    async with aclosing(events_of(dream, silence_s=0.2, longest_s=20)) as events:
        async for event in events:
            found += snapshots_in(event)
            if found and found[-1]["step"] == 9:
                await in_database(Dream.objects.filter(pk=dream.pk).update, remote_job_id="new")
            elif any(snapshot["step"] for snapshot in found):
                break
    assert (found[-2]["step"], found[-2]["preview"] is None) == (9, False)
    assert (found[-1]["step"], found[-1]["preview"], found[-1]["words"]) == (0, None, "Sent to the GPU server.")


async def test_a_cancelled_dream_ends_its_stream(user, settings, serve, dream_worker):
    settings.GPU_SERVER_URL = serve(FakeExecutor(step_s=0.2)).url
    dream = await in_database(waiting, user)
    words = []
    was_asked = False
    async with aclosing(events_of(dream)) as events:
        async for event in events:
            for snapshot in snapshots_in(event):
                if snapshot["status"] == "drawing" and not was_asked:
                    await in_database(services.cancel, dream=dream)
                    was_asked = True
                words.append(snapshot["words"])
    assert words[-1] == "Cancelled. Nothing was charged."


async def test_a_dream_whose_cancelling_takes_a_while_says_so(user, monkeypatch):
    async def follow(*, dream):
        await asyncio.Event().wait()
        yield

    monkeypatch.setattr(gpu_server, "follow", follow)
    dream = await in_database(waiting, user, status="drawing", remote_job_id="mine")
    found = []
    async with aclosing(events_of(dream, silence_s=0.2, longest_s=20)) as events:
        async for event in events:
            found += snapshots_in(event)
            if len(found) == 1:
                await in_database(services.cancel, dream=dream)
            elif len(found) > 1:
                break
    assert (found[-1]["status"], found[-1]["words"]) == ("drawing", "Being cancelled…")


async def test_a_deleted_dream_ends_its_stream(user):
    dream = await in_database(waiting, user)
    async with aclosing(events_of(dream)) as events:
        found = []
        async for event in events:
            found += snapshots_in(event)
            if len(found) == 1:
                await in_database(services.delete, dream=dream)
    assert (found[-1]["status"], found[-1]["is_finished"], found[-1]["pictures"]) == ("deleted", True, [])


async def test_of_a_finished_dream_everything_is_told_at_once(user):
    dream = await in_database(done, user, num_images=2)
    [(when, snapshot)] = await told(dream)
    assert when < 0.5
    assert len(snapshot["pictures"]) == 2


async def test_silence_is_broken_and_no_stream_lasts_for_ever(user):
    dream = await in_database(waiting, user)
    async with aclosing(events_of(dream, silence_s=0.05, longest_s=0.4)) as events:
        found = [event async for event in events]
    assert found[0].startswith(b"retry: ")
    assert len(snapshots_in(b"".join(found))) == 1
    assert found.count(b": still here\n\n") >= 3


async def test_many_watchers_of_many_dreams_ask_the_database_one_question_at_a_time(user, monkeypatch):
    dreams = [await in_database(waiting, user) for _ in range(5)]
    watcher = watching.watcher()
    questions = []
    ask = watcher._ask

    async def counted(question):
        questions.append(question)
        return await ask(question)

    monkeypatch.setattr(watcher, "_ask", counted)
    await asyncio.gather(*(told(dream, silence_s=0.2, longest_s=1) for dream in dreams for _ in range(4)))
    assert 2 <= len(questions) <= 26  # in 1 to 1.2 s


async def test_a_database_that_does_not_answer_is_asked_again(user, monkeypatch, caplog):
    monkeypatch.setattr(watching, "_PAUSE_IN_TROUBLE_S", 0.05)
    dream = await in_database(waiting, user)
    find, failures = Dream.objects.filter, []

    def failing(*arguments, **conditions):
        if "pk__in" in conditions and len(failures) < 3:
            failures.append(conditions)
            raise InterfaceError("gone")
        return find(*arguments, **conditions)

    monkeypatch.setattr(Dream.objects, "filter", failing)
    telling = asyncio.create_task(told(dream))
    await asyncio.sleep(0.3)
    await in_database(services.delete, dream=dream)
    found = await telling
    assert len(failures) == 3
    assert "cannot be queried: gone" in caplog.text
    assert found[-1][1]["status"] == "deleted"


async def test_who_polls_sees_the_steps_too(user, settings, serve, dream_worker):
    settings.GPU_SERVER_URL = serve(FakeExecutor(step_s=0.03)).url
    dream = await in_database(waiting, user, num_inference_steps=30)
    client = AsyncClient()
    await client.aforce_login(user)
    found = []
    async with asyncio.timeout(30):
        while not found or not found[-1]["is_finished"]:
            response = await client.get(reverse("dreams:progress", args=[dream.uuid]))
            assert response["Cache-Control"] == "no-store"
            found.append(response.json())
            await asyncio.sleep(0.1)
    assert len({snapshot["step"] for snapshot in found}) > 2
    assert found[-1]["status"] == "done"


async def test_nobody_watches_a_dream_long_after_the_last_one_left(user, monkeypatch):
    monkeypatch.setattr(watching, "_LINGER_S", 0.2)
    dream = await in_database(waiting, user)
    watcher = watching.watcher()
    watcher.glance(dream)
    assert watcher._watched
    async with asyncio.timeout(5):
        while watcher._watched or not watcher._looking.done():
            await asyncio.sleep(0.05)
    watcher.glance(dream)  # and it begins again
    assert watcher._watched
    assert not watcher._looking.done()


async def test_the_stream_is_for_those_who_may_see_the_dream(user, other_user):
    dream = await in_database(waiting, user, is_public=True)
    path = reverse("dreams:events", args=[dream.uuid])
    client = AsyncClient()
    assert (await client.get(path)).status_code == 404
    await client.aforce_login(other_user)
    assert (await client.get(path)).status_code == 404
    await client.aforce_login(user)
    response = await client.get(path)
    assert response["Content-Type"] == "text/event-stream"
    assert response["Cache-Control"] == "no-store"
    assert response["X-Accel-Buffering"] == "no"
    async with aclosing(aiter(response)) as events:
        assert (await anext(events)).startswith(b"retry: ")
        [snapshot] = snapshots_in(await anext(events))
    assert snapshot["status"] == "waiting"
    assert (await client.post(path)).status_code == 405


# --- over HTTP --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def site_under_uvicorn():
    """The site as it is served, in this event loop."""
    with bound_socket("127.0.0.1", 0) as listener:
        config = uvicorn.Config(application, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            async with asyncio.timeout(10):
                while not server.started:
                    await asyncio.sleep(0.01)
            yield server, serving, f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await asyncio.wait_for(serving, 10)


async def cookies_of(user):
    client = AsyncClient()
    await client.aforce_login(user)
    return {name: morsel.value for name, morsel in client.cookies.items()}


async def test_ten_pages_opened_at_once_are_all_told_how_it_is_within_two_seconds(user, other_user):
    dreams = [await in_database(waiting, who) for who in (user, other_user) for _ in range(5)]
    cookies = {who.pk: await cookies_of(who) for who in (user, other_user)}

    async def first_told_s(client, url, dream):
        begun = time.monotonic()
        path = url + reverse("dreams:events", args=[dream.uuid])
        async with client.stream("GET", path, cookies=cookies[dream.user_id]) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    return time.monotonic() - begun
        raise AssertionError("the stream ended without an event")

    async with site_under_uvicorn() as (_, _, url), httpx2.AsyncClient() as client:
        await client.get(url)  # the first request of a process is slow
        waits = await asyncio.gather(*(first_told_s(client, url, dream) for dream in dreams))
    assert max(waits) < 2, waits


async def test_a_server_that_stops_does_not_wait_for_open_streams(user, monkeypatch):
    read_body, bodies = application.read_body, []

    async def remembered(receive):
        bodies.append(await read_body(receive))
        return bodies[-1]

    monkeypatch.setattr(application, "read_body", remembered)
    dream, cookies = await in_database(waiting, user), await cookies_of(user)
    path = reverse("dreams:events", args=[dream.uuid])
    async with (
        site_under_uvicorn() as (server, serving, url),
        httpx2.AsyncClient(cookies=cookies) as client,
        client.stream("GET", url + path) as response,
    ):
        assert response.status_code == 200
        begun = time.monotonic()
        server.should_exit = True
        with pytest.raises(httpx2.RemoteProtocolError):
            await response.aread()
        await serving
    assert time.monotonic() - begun < 5
    for file in bodies:
        file.close()  # Django leaves it to Python, where a request is cut off


async def test_a_reader_who_leaves_is_not_told_any_more(user, monkeypatch):
    monkeypatch.setattr(watching, "_LINGER_S", 0.1)
    dream, cookies = await in_database(waiting, user), await cookies_of(user)
    watcher = watching.watcher()
    async with site_under_uvicorn() as (_, _, url), httpx2.AsyncClient(cookies=cookies) as client:
        async with client.stream("GET", url + reverse("dreams:events", args=[dream.uuid])) as response:
            await anext(response.aiter_bytes())
            assert [watched.num_watchers for watched in watcher._watched.values()] == [1]
        async with asyncio.timeout(5):
            while watcher._watched:
                await asyncio.sleep(0.02)
