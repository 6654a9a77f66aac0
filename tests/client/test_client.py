"""What callers of `Client` and `AsyncClient` may rely on."""

from __future__ import annotations

import asyncio
import errno
import inspect
import io
import json
import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import httpx2
import pytest
import semantic_bit_client
from semantic_bit_client import (
    AsyncClient,
    AsyncJob,
    BadAnswer,
    Client,
    Job,
    JobCounts,
    JobFailed,
    NoConnection,
    Retries,
    SemanticBitError,
    ServerUnavailable,
    TookTooLong,
)
from semantic_bit_client.calls import fail_unless_done

from server.worker.fake_executor import FakeExecutor
from tests.client.proxy import Fault, proxied

QUICK = Retries(first_s=0.01, most_s=0.05)
SMALL = {"num_inference_steps": 2, "height": 64, "width": 64}
PNG = b"\x89PNG\r\n\x1a\n"
SECRET = "sb_live_12345678_abcdefghijklmnop"


@pytest.fixture(scope="module")
def client(server):
    with Client(server.url) as client:
        yield client


def test_a_picture_says_how_it_came_about(server, client):
    picture = client.generate("a cat", seed=7, user="ada", **SMALL)
    assert picture.bytes.startswith(PNG)
    assert (picture.seed, picture.model, picture.media_type) == (7, "fake", "image/png")
    assert picture.work_units == pytest.approx(2 * 64 * 64 / (28 * 512 * 512), rel=1e-2)
    assert picture.timings.total_s >= picture.timings.denoise_s >= 0
    assert client.generate("a cat", seed=7, **SMALL).bytes == picture.bytes
    cost = client.job(picture.job_id).state.cost
    assert (cost.work_units, cost.price) == (picture.work_units, Decimal(0))
    assert client.job(picture.job_id).state.user == "ada"
    assert repr(picture).count("PNG") == 0, "a log line is no place for the file"


def test_every_wish_is_handed_on(server, client):
    wish = {
        "negative_prompt": "snow", "num_inference_steps": 3, "guidance_scale": 4, "height": 64, "width": 128,
        "seed": 9, "sampler": "ddim", "noise_schedule": "default", "eta": 0.5, "output_format": "webp", "user": "ada",
    }  # fmt: skip
    job = client.submit("a cat", num_images=2, **wish)
    params = job.state.params
    assert {name: getattr(params, name) for name in wish.keys() - {"user", "sampler"}} == {
        name: value for name, value in wish.items() if name not in {"user", "sampler"}
    }
    assert (params.sampler, params.num_images, job.state.user) == ("DDIM", 2, "ada")
    job.wait()
    first, second = job.images()
    assert (first.seed, second.seed, first.media_type) == (9, 10, "image/webp")
    assert first.work_units + second.work_units == pytest.approx(job.state.work_units)


def test_an_argument_that_there_is_not_is_refused_before_anything_is_sent(client):
    with pytest.raises(TypeError, match="'steps'"):
        client.submit("a cat", steps=3)
    with pytest.raises(TypeError, match="'num_images'"):
        client.generate("a cat", num_images=2)


def test_a_job_is_found_again_by_its_id(server, client):
    job = client.submit("a cat", **SMALL)
    with Client(server.url) as other:
        found = other.job(job.id)
        found.wait()
        assert found.images()[0].bytes == (job.wait(), job.images())[1][0].bytes


@pytest.mark.parametrize("job_id", ["", "../queue", "a b", "x" * 65, "a/b", "a?b"])
def test_what_cannot_be_a_jobs_id_is_never_sent(client, job_id):
    with pytest.raises(ValueError, match="is not a job id"):
        client.job(job_id)


def test_the_same_key_is_the_same_picture(server, client):
    before = len(server.executor.started)
    first = client.generate("a cat", idempotency_key="dream-1", **SMALL)
    again = client.generate("a cat", idempotency_key="dream-1", **SMALL)
    assert first.bytes == again.bytes
    assert first.seed == again.seed
    assert len(server.executor.started) == before + 1


def test_health_queue_and_samplers_are_told_as_records(client):
    health, queue = client.health(), client.queue(num_inference_steps=2, height=64, width=64)
    assert (health.status, health.model_loaded, health.generator_info.model_id) == ("healthy", True, "fake")
    assert (queue.waiting, queue.accepting, queue.max_waiting) == (0, True, 100)
    [model] = client.models()
    assert (model.id, model.is_default, model.width, model.size_multiple) == ("fake", True, 512, 8)
    samplers = {sampler.name: sampler for sampler in client.samplers(num_inference_steps=10)}
    assert [name for name, sampler in samplers.items() if sampler.is_default] == ["DPMSolver++"]
    assert samplers["Heun"].model_calls == 19


async def test_both_clients_are_told_what_was_drawn_and_what_it_cost(serve):
    url = serve(price_per_work_unit=Decimal("0.02")).url
    with Client(url) as client:
        assert (client.usage().days, client.usage().total.price) == ((), Decimal(0))
        one, two = client.submit("a cat", **SMALL), client.submit("a cat", num_images=2)
        costs = [job.wait().cost for job in (one, two)]
        usage = client.usage()
    async with AsyncClient(url) as client:
        assert await client.usage() == usage
    assert usage.last_day - usage.first_day == timedelta(days=29)
    assert usage.first_day < usage.days[-1].day <= usage.last_day
    assert usage.total.jobs == JobCounts(done=2, failed=0, cancelled=0, dead=0)
    assert usage.total.images == sum(day.images for day in usage.days) == 3
    assert usage.total.price == sum(day.price for day in usage.days) == sum(cost.price for cost in costs)
    assert usage.total.price >= Decimal("0.04")
    assert usage.total.work_units == pytest.approx(sum(cost.work_units for cost in costs), abs=1e-6)
    assert usage.total.engine_s == pytest.approx(sum(cost.engine_s for cost in costs), abs=2e-3)


def test_threads_share_a_client(server, client):
    def draw(seed):
        return client.generate("a cat", seed=seed, **SMALL)

    with ThreadPoolExecutor(8) as threads:
        assert [picture.seed for picture in threads.map(draw, range(24))] == list(range(24))


async def test_tasks_share_a_client(server):
    async with AsyncClient(server.url) as client:
        pictures = await asyncio.gather(*(client.generate("a cat", seed=seed, **SMALL) for seed in range(24)))
        assert [picture.seed for picture in pictures] == list(range(24))


async def test_whoever_awaits_can_do_all_that_whoever_waits_can(server):
    async with AsyncClient(server.url) as client:
        job = await client.submit("a cat", num_images=2, **SMALL)
        events = [event async for event in job.events()]
        assert events[-1].status == "done"
        assert [picture.bytes[:8] for picture in await job.images()] == [PNG, PNG]
        assert (await job.cancel()).status == "done"
        assert (await (await client.job(job.id)).wait()).status == "done"
        assert (await client.health()).status == "healthy"
        assert (await client.queue()).accepting
        assert len(await client.samplers()) > 20


@pytest.mark.parametrize(("waits", "awaits"), [(Client, AsyncClient), (Job, AsyncJob)])
def test_both_clients_have_the_same_methods_with_the_same_arguments(waits, awaits):
    def methods(kind):
        return {
            name: [str(parameter).replace("Async", "") for parameter in inspect.signature(method).parameters.values()]
            for name, method in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_")
        }

    assert methods(waits) == methods(awaits)
    for name in methods(waits):
        assert getattr(waits, name).__doc__ == getattr(awaits, name).__doc__


# --- trouble ----------------------------------------------------------------------------------------------------------


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


# --- answers that are none --------------------------------------------------------------------------------------------


def answering(content, status=200, **headers):
    """A client whose server says always the same."""
    headers = {"content-type": "application/json"} | headers
    transport = httpx2.MockTransport(lambda request: httpx2.Response(status, headers=headers, content=content))
    return Client("http://127.0.0.1", retries=Retries(attempts=1), transport=transport)


QUEUE = (
    b'{"waiting": 0, "running": 0, "max_waiting": 1, "images_in_flight": 0, "max_images_in_flight": null, '
    b'"accepting": true, "eta_s": %s}'
)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"waiting": NaN}', b'{"waiting": "1"}',
        b'{"waiting": true}', b'{"waiting": 1.5}', b'{"waiting": null}', b"<html>", b'{"waiting": 1}',
        b'{"waiting": ' + b"9" * 5000 + b"}", QUEUE % b"1e999", QUEUE % (b"9" * 400), QUEUE % b"true",
    ],
    ids=lambda content: content[:12],
)  # fmt: skip
def test_what_is_no_answer_is_no_answer(content):
    with answering(QUEUE % b"1") as client:
        assert client.queue().eta_s == 1
    with answering(content) as client, pytest.raises(BadAnswer):
        client.queue()


def test_a_job_that_is_done_without_its_pictures_is_no_answer(client):
    job = client.submit("a cat", **SMALL)
    state = job.wait()
    with pytest.raises(BadAnswer, match="0 pictures, not 1"):
        fail_unless_done(replace(state, images=()))


def test_members_that_the_client_does_not_know_do_no_harm(client):
    with httpx2.Client() as http:
        base_url = client._wire.settings.base_url
        told = http.get(f"{base_url}/v1/queue").json()
    with answering(json.dumps(told | {"news": [1, {}]}).encode()) as other:
        assert other.queue() == client.queue()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_with_the_key(server, status):
    asked = []

    def answer(request):
        asked.append(request.url.host)
        return httpx2.Response(status, headers={"location": "http://elsewhere.example/"})

    with Client(server.url) as client:
        job = client.submit("a cat", **SMALL)
    with Client("http://127.0.0.1", SECRET, transport=httpx2.MockTransport(answer), retries=QUICK) as client:
        for ask in (lambda: client.submit("a cat"), client.queue, lambda: list(Job(client._wire, job.state).events())):
            with pytest.raises(BadAnswer):
                ask()
    assert set(asked) == {"127.0.0.1"}


def test_an_answer_without_end_is_not_kept(monkeypatch):
    monkeypatch.setattr("semantic_bit_client.transport._LARGEST_ANSWER", 1000)
    with answering(b"x" * 2000) as client, pytest.raises(NoConnection, match="did not end"):
        client.queue()


# --- the key ----------------------------------------------------------------------------------------------------------


def test_the_key_is_sent_as_a_bearer_and_shown_nowhere(server):
    with proxied(server.url, [None, Fault("503")]) as proxy, Client(proxy.url, SECRET, retries=QUICK) as client:
        client.queue()
        client.queue()
        assert {seen.headers["authorization"] for seen in proxy.seen} == {f"Bearer {SECRET}"}
        assert SECRET not in repr(client._wire.settings)
    with Client("http://127.0.0.1:9", SECRET, retries=Retries(attempts=1)) as client:
        with pytest.raises(NoConnection) as raised:
            client.queue()
        assert SECRET not in f"{raised.value!r} {raised.value.__cause__!r} {raised.value.__dict__}"


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "schlüssel"])
def test_a_key_that_cannot_be_sent_is_refused_without_being_shown(key):
    with pytest.raises(ValueError, match="printable ASCII") as raised:
        Client("http://127.0.0.1", key)
    assert not key or key not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8000",
        "ftp://127.0.0.1",
        "http://",
        "http://a:b",
        "http://a\n",
        "http://me:secret@a",
        "http://a?b=c",
    ],
)
def test_a_url_that_is_none_is_refused(url):
    with pytest.raises(ValueError, match="base_url") as raised:
        AsyncClient(url)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("end", ["", "/"])
def test_the_server_may_live_below_a_path(server, end):
    asked = []

    class Below(httpx2.HTTPTransport):
        def handle_request(self, request):
            asked.append(request.url.path)
            request.url = request.url.copy_with(raw_path=request.url.raw_path.removeprefix(b"/draw"))
            return super().handle_request(request)

    with Client(f"{server.url}/draw{end}", transport=Below()) as client:
        assert client.generate("a cat", seed=7, **SMALL).seed == 7
    assert len(asked) == 4
    assert all(path.startswith("/draw/v1/jobs") for path in asked)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_the_proxies_of_the_environment_do_not_get_the_key(server, monkeypatch, name):
    with proxied(server.url) as proxy:
        for other in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(other, raising=False)
        monkeypatch.setenv(name, proxy.url)
        with Client(server.url, SECRET) as client:
            assert client.health().status == "healthy"
    assert not proxy.seen


# --- the package ------------------------------------------------------------------------------------------------------


def test_everything_that_is_exported_is_documented():
    for name in semantic_bit_client.__all__:
        assert name == "JobStatus" or getattr(semantic_bit_client, name).__doc__, name


def test_no_error_needs_more_than_a_sentence():
    error = SemanticBitError("no")
    assert (str(error), error.code, error.status, error.wrong_values, error.job_id) == ("no", "", None, (), None)
    assert issubclass(JobFailed, SemanticBitError)


@pytest.fixture
def picture(client):
    return client.generate("a cat", **SMALL)


def test_a_picture_saves_itself(picture, tmp_path):
    picture.save(tmp_path / "cat.png")
    picture.save(str(tmp_path / "dog.png"))
    assert (tmp_path / "cat.png").read_bytes() == (tmp_path / "dog.png").read_bytes() == picture.bytes
    (tmp_path / "plain").touch()
    assert (tmp_path / "cat.png").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_file_is_replaced_whole_or_not_at_all(picture, tmp_path, monkeypatch):
    file = tmp_path / "cat.png"
    file.write_bytes(b"an older cat")
    (tmp_path / "link.png").symlink_to(file)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            picture.save(file)
    assert file.read_bytes() == b"an older cat"
    picture.save(tmp_path / "link.png")
    assert file.read_bytes() == picture.bytes
    assert (tmp_path / "link.png").is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == {"cat.png", "link.png"}, "no leavings"


def test_a_pipe_is_written_to_and_not_replaced(picture, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(pipe.read_bytes)
        picture.save(pipe)
        assert reading.result(5) == picture.bytes
    assert pipe.is_fifo()


def test_an_error_arrives_whole_in_another_process():
    error = semantic_bit_client.RateLimited("slowly", code="rate_limited", status=429, retry_after_s=3, request_id="a")
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.__dict__) == (type(error), "slowly", error.__dict__)


def test_the_rules_know_no_http_library():
    folder = Path(semantic_bit_client.__file__).parent
    for name in ("calls", "deadline", "decoding", "errors", "event_stream", "job_follower", "models", "retries"):
        source = (folder / f"{name}.py").read_text()
        assert "import httpx2" not in source
        assert "import stamina" not in source
    assert "server" not in {line.split(" ")[1].split(".")[0] for line in imports(folder)}


def imports(folder: Path) -> list[str]:
    return [
        line
        for file in folder.glob("*.py")
        for line in io.StringIO(file.read_text())
        if line.startswith(("import ", "from "))
    ]
