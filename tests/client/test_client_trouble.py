"""The client when a server is slow, gone or ends: retries, time limits, cancellation."""

from __future__ import annotations

import asyncio
import time

import httpx2
import pytest
import semantic_bit_client
from semantic_bit_client import (
    AsyncClient,
    Client,
    NoConnection,
    Retries,
    ServerUnavailable,
    TookTooLong,
)

from server.worker.fake_executor import FakeExecutor
from tests.client.client_values import PNG, QUICK, SMALL
from tests.client.proxy import Fault, proxied


@pytest.mark.parametrize("kind", ["reset", "deaf", "garbage", "page", "half", "429", "502", "503", "504"])
def test_a_job_is_asked_for_again_under_its_key_and_drawn_once(serve, kind):
    running = serve()
    with proxied(running.url, [Fault(kind), Fault(kind)]) as proxy, Client(proxy.url, retries=QUICK) as client:
        picture = client.generate("a cat", **SMALL)
    asked = [seen for seen in proxy.seen if seen.method == "POST"]
    assert len(asked) == 3
    assert len({(seen.headers["idempotency-key"], seen.body) for seen in asked}) == 1
    assert len(running.executor.started) == 1
    assert running.executor.started[0].params.seed == picture.seed


def test_two_calls_have_two_keys(server):
    with proxied(server.url) as proxy, Client(proxy.url) as client:
        client.submit("a cat", **SMALL)
        client.submit("a cat", **SMALL).cancel()
    keys = [seen.headers["idempotency-key"] for seen in proxy.seen if seen.method == "POST"]
    assert len(set(keys)) == 3, "every POST has one"


def test_a_mistake_of_the_server_is_not_tried_again(server):
    with proxied(server.url, [Fault("500")]) as proxy, Client(proxy.url, retries=QUICK) as client:
        with pytest.raises(semantic_bit_client.ServerFault):
            client.submit("a cat", **SMALL)
        assert len(proxy.seen) == 1


def test_retry_after_is_obeyed_on_the_wire(server):
    with proxied(server.url, [Fault("429", retry_after_s=1)]) as proxy, Client(proxy.url, retries=QUICK) as client:
        began = time.monotonic()
        client.queue()
        assert time.monotonic() - began >= 1


def test_tries_are_bounded(server):
    with (
        proxied(server.url, lambda seen: Fault("503")) as proxy,
        Client(proxy.url, retries=Retries(attempts=4, first_s=0.01)) as client,
    ):
        with pytest.raises(ServerUnavailable):
            client.queue()
        assert len(proxy.seen) == 4


def test_a_picture_that_is_not_the_picture_is_fetched_again(server):
    def spoil(seen):
        spoilt = [earlier for earlier in proxy.seen if "/images/" in earlier.path]
        return Fault(["page", "half", "late"][len(spoilt) - 1], 0.0) if spoilt else None

    with proxied(server.url, spoil) as proxy, Client(proxy.url, retries=QUICK) as client:
        assert client.generate("a cat", **SMALL).bytes.startswith(PNG)
    assert len([seen for seen in proxy.seen if "/images/" in seen.path]) == 3


def assert_waits_as_promised(handed):
    """What the README says, of each (path, timeouts) that a transport was handed by a client made without any."""
    assert {timeout["connect"] for _, timeout in handed} == {3.0}
    assert {timeout["read"] for path, timeout in handed if not path.endswith("/events")} == {10.0}
    silences_s = [timeout["read"] for path, timeout in handed if path.endswith("/events")]
    assert silences_s
    assert all(10 <= silence_s <= 25 for silence_s in silences_s), silences_s


async def test_connecting_may_take_three_seconds_and_an_answer_ten(server):
    handed = []

    class Noting(httpx2.HTTPTransport):
        def handle_request(self, request):
            handed.append((request.url.path, request.extensions["timeout"]))
            return super().handle_request(request)

    class AsyncNoting(httpx2.AsyncHTTPTransport):
        async def handle_async_request(self, request):
            handed.append((request.url.path, request.extensions["timeout"]))
            return await super().handle_async_request(request)

    with Client(server.url, transport=Noting()) as client:
        client.generate("a cat", **SMALL)
    assert_waits_as_promised(handed)
    handed.clear()
    async with AsyncClient(server.url, transport=AsyncNoting()) as client:
        await client.generate("a cat", **SMALL)
    assert_waits_as_promised(handed)


def test_nobody_home_is_said_within_the_time_for_connecting():
    with Client("http://127.0.0.1:9", retries=Retries(attempts=2, first_s=0.01)) as client:
        with pytest.raises(NoConnection) as raised:
            client.generate("a cat")
        assert raised.value.job_id is None


def test_a_server_that_accepts_and_says_nothing_is_given_up(server):
    with (
        proxied(server.url, lambda seen: Fault("late", 5)) as proxy,
        Client(proxy.url, read_timeout_s=0.2, retries=Retries(attempts=2, first_s=0.01)) as client,
    ):
        began = time.monotonic()
        with pytest.raises(NoConnection, match="no answer"):
            client.queue()
        assert time.monotonic() - began < 3


@pytest.mark.parametrize("fault", [Fault("late", 5), Fault("stall", 5), Fault("503", retry_after_s=1)])
def test_the_callers_time_bounds_a_server_that_does_not_answer(server, fault):
    with proxied(server.url, lambda seen: fault) as proxy, Client(proxy.url) as client:
        began = time.monotonic()
        with pytest.raises((TookTooLong, ServerUnavailable)) as raised:
            client.generate("a cat", timeout_s=0.5)
        assert time.monotonic() - began < 1.5
    assert isinstance(raised.value, TookTooLong) == (fault.kind != "503"), "no wait that is too long is begun"


async def test_no_time_is_no_drawing(server):
    before = len(server.executor.started)
    async with AsyncClient(server.url) as client:
        with pytest.raises(TookTooLong):
            await client.generate("a cat", timeout_s=0)
    assert len(server.executor.started) == before


def test_the_callers_time_bounds_everything_and_the_job_goes_on(serve):
    running = serve(FakeExecutor(step_s=0.2))
    with Client(running.url) as client:
        began = time.monotonic()
        with pytest.raises(TookTooLong) as raised:
            client.generate("a cat", timeout_s=0.3, num_inference_steps=10)
        assert time.monotonic() - began < 1.5
        job = client.job(raised.value.job_id)
        assert not job.state.is_over
        job.wait()
        assert job.images()[0].bytes.startswith(PNG)


async def test_a_task_that_is_cancelled_stops_waiting_at_once(serve):
    running = serve(FakeExecutor(step_s=0.05))
    async with AsyncClient(running.url) as client:
        drawing = asyncio.create_task(client.generate("a cat"))
        async with asyncio.timeout(10):
            while not running.executor.started:
                await asyncio.sleep(0.02)
        drawing.cancel()
        began = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await drawing
        assert time.monotonic() - began < 0.5
        assert (await client.queue()).running == 1, "the job goes on: it can be found again by its key"


def test_a_job_survives_the_end_of_its_server(serve, tmp_path):
    first = serve(FakeExecutor(step_s=0.05), data_dir=str(tmp_path))
    with Client(first.url) as client:
        job_id = client.submit("a cat", seed=3).id
    first.stop()
    second = serve(FakeExecutor(), data_dir=str(tmp_path))
    with Client(second.url) as client:
        job = client.job(job_id)
        job.wait()
        assert job.images()[0].seed == 3
