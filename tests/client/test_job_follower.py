"""Following a job: events are listened to again when they are lost, and then the job is looked after."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from itertools import pairwise

import pytest
from semantic_bit_client import (
    AsyncClient,
    BadAnswer,
    Client,
    JobNotFound,
    NoConnection,
    Progress,
    RateLimited,
    Retries,
    ServerFault,
    TookTooLong,
)
from semantic_bit_client.deadline import Deadline
from semantic_bit_client.event_stream import EventStream
from semantic_bit_client.job_follower import EventSession, JobFollower

from server.worker.fake_executor import FakeExecutor
from tests.client.proxy import Fault, proxied

QUICK = Retries(first_s=0.01, most_s=0.05)


def progress(step=0, status="running", eta_s=None):
    return Progress("0" * 16, status, 1, step, 28, None, eta_s)


def follower(timeout_s=None, eta_s=None, clock=None):
    deadline = Deadline(timeout_s, clock) if clock else Deadline(timeout_s)
    return JobFollower(
        "0" * 16, retries=Retries(first_s=1), read_timeout_s=10, deadline=deadline, eta_s=eta_s, chance=lambda: 1
    )


def message(**told):
    snapshot = {"job_id": "0" * 16, "status": "running", "attempt": 1, "step": 0, "steps": 28,
                "queue_position": None, "eta_s": None} | told  # fmt: skip
    return f"id: 1.0\nevent: snapshot\ndata: {json.dumps(snapshot)}\n\n".encode()


def test_it_listens_first_then_again_and_after_three_losses_it_looks():
    way = follower()
    plans = []
    for _ in range(5):
        plans.append(way.plan())
        way.lost(NoConnection("away"))
    assert [plan.is_listening for plan in plans] == [True, True, True, False, False]
    assert [plan.pause_s for plan in plans] == [0, 1, 2, 1, 1]


def test_a_stream_that_brought_something_new_is_worth_as_many_tries_again():
    way = follower()
    for step in range(10):
        assert way.plan().is_listening
        assert way.heard(progress(step))
        way.lost(None)
    for _ in range(2):
        assert not way.heard(progress(9))
        way.lost(None)
    assert not way.plan().is_listening


def test_the_time_left_is_no_news_by_itself():
    way = follower()
    assert way.heard(progress(1, eta_s=5))
    assert not way.heard(progress(1, eta_s=4))
    assert way.heard(progress(2, eta_s=4))


def test_it_looks_more_often_the_sooner_the_job_should_be_done():
    for eta_s, pause_s in [(None, 1), (0.0, 0.2), (3, 1.5), (1000, 5)]:
        way = follower(eta_s=eta_s)
        for _ in range(3):
            way.lost(None)
        assert way.plan().pause_s == pause_s


def test_a_stream_is_lost_when_it_is_silent_for_longer_than_the_job_should_take():
    assert follower(eta_s=None).plan().silence_s == 25
    assert follower(eta_s=1).plan().silence_s == 11
    assert follower(eta_s=1000).plan().silence_s == 25
    assert follower(eta_s=1000, timeout_s=3).plan().silence_s <= 3


def test_it_waits_as_long_as_the_server_asks():
    way = follower()
    way.lost(RateLimited("slowly", status=429, retry_after_s=9))
    assert way.plan().pause_s == 9


def test_it_does_not_wait_for_longer_than_any_request_may():
    with pytest.raises(RateLimited, match="tomorrow"):
        follower().lost(RateLimited("tomorrow", status=429, retry_after_s=86400))


def test_what_looking_would_meet_too_ends_it():
    way = follower()
    way.lost(ServerFault("a stream that failed", status=500))  # the job may be fine
    with pytest.raises(JobNotFound):
        way.lost(JobNotFound("gone", status=404))


def test_it_is_over_with_the_callers_time():
    now = [0.0]
    way = follower(timeout_s=5, clock=lambda: now[0])
    step = way.plan()
    assert step.silence_s == 5
    now[0] = 5.0
    for act in (way.plan, lambda: way.is_worth_waiting(step)):
        with pytest.raises(TookTooLong, match="the job goes on"):
            act()
    assert way.heard(progress(28, "done"))
    assert way.is_over


def test_a_stream_is_opened_anew_before_its_wait_would_run_over_the_callers_time():
    now = [0.0]
    way = follower(timeout_s=60, clock=lambda: now[0])
    step = way.plan()
    session = EventSession(way, step)
    waits = []
    while now[0] < 59:
        assert list(session.take(b": keep-alive\n\n")) == []
        if not session.goes_on():
            step = way.plan()
            session = EventSession(way, step)
            assert step.is_listening, "that was no loss"
        waits.append(step.silence_s)
        now[0] += 0.5
    assert waits[0] == 25
    assert all(index / 2 + wait <= 61 for index, wait in enumerate(waits)), (
        "nothing waits for longer than a second more"
    )
    assert len(set(waits)) < 40


# --- the stream -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
def test_messages_are_read_however_they_are_cut(end, size):
    text = (
        ": hello\n\ndata: one\ndata:two ü\n\n: keep-alive\n\nid: 3\nretry: 1\n\nevent: x\ndata\ndata: 3\n\ndata: lost"
    )
    content, stream = text.replace("\n", end).encode(), EventStream()
    pieces = [content[start : start + size] for start in range(0, len(content), size)]
    assert [data for piece in pieces for data in stream.take(piece)] == ["one\ntwo ü", "\n3"]


@pytest.mark.parametrize("piece", [b"x" * 100_000, b"data: " + b"x" * 100_000 + b"\n"])
def test_a_message_without_end_is_not_kept(piece):
    stream = EventStream()
    with pytest.raises(BadAnswer, match="more than"):
        for _ in range(100):
            stream.take(piece)


def test_what_came_before_something_unreadable_is_still_told():
    session = EventSession(follower(), follower().plan())
    news = session.take(message(step=3) + b"data: {}\n\n")
    assert next(news).step == 3
    with pytest.raises(BadAnswer):
        next(news)


@pytest.mark.parametrize("preview", ["data:image/jpeg;base64,ü", "data:image/jpeg;base64,x", 7])
def test_a_preview_that_is_none_is_no_answer(preview):
    with pytest.raises(BadAnswer, match="preview"):
        list(EventSession(follower(), follower().plan()).take(message(preview=preview)))


# --- over the wire ----------------------------------------------------------------------------------------------------


def is_events(seen):
    return seen.path.endswith("/events")


def test_a_stream_that_breaks_off_is_taken_up_again_and_nothing_is_told_twice(serve):
    running = serve(FakeExecutor(step_s=0.03))
    streams = []

    def break_twice(seen):
        if is_events(seen):
            streams.append(seen)
            return [Fault("reset"), Fault("garbage"), None][min(len(streams) - 1, 2)]
        return None

    with proxied(running.url, break_twice) as proxy, Client(proxy.url, retries=QUICK) as client:
        job = client.submit("a cat", num_inference_steps=20)
        events = [replace(event, eta_s=None) for event in job.events()]
    assert len(streams) == 3
    # A preview is news of its own: it may come after the step that it shows.
    assert all(event != before for before, event in pairwise(events))
    steps = [(event.step, event.is_over) for event in events]
    assert steps == sorted(steps)
    assert steps[-1] == (20, True)


@pytest.mark.parametrize("kind", ["reset", "503", "500", "page", "half"])
def test_without_any_stream_the_job_is_looked_after_until_it_is_done(serve, kind):
    running = serve(FakeExecutor(step_s=0.01))
    with proxied(running.url, lambda seen: Fault(kind) if is_events(seen) else None) as proxy:
        with Client(proxy.url, retries=QUICK) as client:
            assert client.generate("a cat", num_inference_steps=20, seed=5).seed == 5
        assert 1 <= sum(map(is_events, proxy.seen)) <= 3
    assert len(running.executor.started) == 1


async def test_a_stream_that_falls_silent_is_left_when_the_job_should_be_done(serve):
    running = serve(FakeExecutor(step_s=0.01))
    with Client(running.url) as client:
        client.generate("a cat", num_inference_steps=20)  # so that the server knows its pace
    with proxied(running.url, lambda seen: Fault("stall", 60) if is_events(seen) else None) as proxy:
        async with AsyncClient(proxy.url, retries=QUICK, read_timeout_s=0.3) as client, asyncio.timeout(10):
            picture = await client.generate("a cat", num_inference_steps=20, seed=5)
    assert picture.seed == 5
    assert len(running.executor.started) == 2


def test_signs_of_life_do_not_outlast_the_callers_time(serve, monkeypatch):
    """
    A job that waits in the queue has no news; the comments that keep its stream open are none.
    """
    monkeypatch.setattr("server.routes.jobs._KEEP_ALIVE_S", 0.1)
    running = serve(FakeExecutor(step_s=0.5))
    with Client(running.url) as client:
        client.submit("before it", num_images=8)
        waiting = client.submit("a cat")
        began = time.monotonic()
        with pytest.raises(TookTooLong):
            waiting.wait(timeout_s=1.5)
        assert 1.4 < time.monotonic() - began < 3
