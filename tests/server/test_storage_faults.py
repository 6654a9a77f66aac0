"""A disk that is full, slow or hangs under the whole service: who is answered, what stops, which files are left."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from functools import partial

import httpx2
import pytest

from server.config import Settings
from server.errors import ServerError, StoreTroubleError
from server.main import create_app
from server.store.disk import DiskState, look_at
from server.store.errors import StoreUnavailableError
from server.store.job_store import JobStore
from server.store.record import MAX_ATTEMPTS, JobQuery
from server.store.storage import Retention
from server.thumbnails import Thumbnails
from server.worker.fake_executor import FakeExecutor
from tests.server.faulty_storage import STORE_METHODS, full_disk, open_faulty
from tests.server.test_generator import OnSignal, running, until, wish

KEEP_ALL = Retention(results_s=3600, results_bytes=2**30, jobs_s=1e6)


@contextlib.asynccontextmanager
async def service(tmp_path, *, look=look_at, executor=None, **settings):
    """The app, and a client that speaks to it without a listener."""
    app = create_app(
        Settings(_env_file=None, model_id="fake", data_dir=tmp_path, **settings),
        executor=executor or FakeExecutor(),
        open_storage=partial(open_faulty, look=look),
    )
    transport = httpx2.ASGITransport(app, client=("127.0.0.1", 1))
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as ask,
    ):
        await until(lambda: app.state.service.generator.executor.state == "ready")
        yield ask, app.state.service


class HungDisk:
    """Answers no look until it is let go."""

    def __init__(self):
        self.answers = threading.Event()
        self.answers.set()

    def __call__(self, folder):
        self.answers.wait(20)
        return look_at(folder)


# --- a disk that hangs ------------------------------------------------------------------------------------------------


async def test_health_answers_within_two_and_a_half_seconds_on_a_disk_that_hangs(tmp_path):
    disk, forever = HungDisk(), asyncio.Event()
    async with service(tmp_path, look=disk) as (ask, app):
        disk.answers.clear()
        for name in STORE_METHODS:
            app.generator.storage.store.before[name] = forever.wait
        await asyncio.sleep(0.15)  # the last look was good for a tenth of a second
        try:
            for _ in range(2):
                began = time.monotonic()
                answers = await asyncio.gather(
                    *(ask.get(path) for path in ("/health", "/readyz", "/metrics", "/livez", "/v1/queue"))
                )
                assert time.monotonic() - began < 2.5
            health, ready, metrics, alive, queue = answers
            assert health.json()["status"] == "degraded"
            assert "the disk has not responded for" in health.json()["reason"]
            assert (ready.status_code, alive.status_code, queue.json()["accepting"]) == (503, 200, False)
            assert 'semantic_bit_status{status="degraded"} 1.0' in metrics.text
            began = time.monotonic()
            assert (await ask.post("/v1/jobs", json={"prompt": "a cat"})).json()["code"] == "store_unavailable"
            assert time.monotonic() - began < 2.5
        finally:
            disk.answers.set()
            forever.set()
        async with asyncio.timeout(5):
            while (await ask.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.05)


async def test_a_transaction_that_hangs_shows_though_the_folder_answers(tmp_path, monkeypatch):
    async with service(tmp_path) as (ask, app):
        thread = app.generator.storage.store._thread
        hangs = threading.Event()
        reading = asyncio.create_task(thread.read(lambda _: hangs.wait(10)))
        await until(lambda: thread.busy_s > 0.05)
        monkeypatch.setattr("server.store.storage.ANSWER_S", 0.05)
        assert "the disk has not responded" in (await ask.get("/health")).json()["reason"]
        hangs.set()
        await reading
        await until(lambda: thread.busy_s == 0)
        assert (await ask.get("/health")).json()["status"] == "healthy"


async def test_asking_whether_it_is_ready_writes_nothing(tmp_path):
    """Not on good days, and not on bad ones either: a disk in trouble is probed by the server itself."""
    async with service(tmp_path) as (ask, app):
        storage, writes = app.generator.storage, []

        async def note():
            writes.append("store")

        storage.store.before["check_writable"] = note
        storage.files.before["check_writable"] = lambda: writes.append("files")
        for _ in range(20):
            for path in ("/readyz", "/health", "/metrics", "/v1/queue", "/livez"):
                assert (await ask.get(path)).status_code == 200
            await asyncio.sleep(0.02)
        assert writes == []
        with full_disk(storage, "add"):
            assert (await ask.post("/v1/jobs", json={"prompt": "a cat"})).status_code == 503
            before = len(writes)
            for _ in range(50):
                assert (await ask.get("/readyz")).status_code == 503
            assert len(writes) == before
        async with asyncio.timeout(5):
            while (await ask.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.05)
        assert writes == ["store", "files"]


@pytest.mark.parametrize(
    "state",
    [
        DiskState(trouble="the disk is full (12 bytes free)", free_bytes=12, total_bytes=2**30),
        DiskState(trouble="the data folder is read-only", free_bytes=2**29, total_bytes=2**30),
    ],
)
async def test_what_can_be_seen_without_writing_is_seen_before_a_job_is_accepted(tmp_path, state):
    seen = []
    async with service(tmp_path, look=lambda folder: seen[-1] if seen else look_at(folder)) as (ask, _):
        seen.append(state)
        await asyncio.sleep(0.15)
        assert (await ask.post("/v1/jobs", json={"prompt": "a cat"})).status_code == 503
        assert state.trouble in (await ask.get("/readyz")).json()["reason"]
        metrics = dict(line.rsplit(" ", 1) for line in (await ask.get("/metrics")).text.splitlines())
        assert float(metrics["semantic_bit_disk_free_bytes"]) == state.free_bytes
        seen.clear()
        await asyncio.sleep(0.15)
        assert (await ask.post("/v1/jobs", json={"prompt": "a cat"})).status_code == 202


# --- a full disk ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["waiting", "drawing", "its pictures are being written", "its end is being written"])
async def test_a_cancel_answers_on_a_full_disk_and_stops_the_drawing_at_once(tmp_path, stage):
    executor = FakeExecutor(step_s=0.02, max_images_in_flight=1) if stage != "waiting" else FakeExecutor(load_s=30)
    async with running(executor, tmp_path) as generator:
        job = (await generator.submit(wish(is_bound=False, num_inference_steps=50 if stage == "drawing" else 2))).record
        if stage == "drawing":
            await until(lambda: generator.states.of(job).step > 1)
        with full_disk(generator.storage, "cancel", "finish", "write"):
            if stage == "its pictures are being written":
                del generator.storage.store.before["finish"]
            if stage.startswith("its"):
                await until(lambda: generator.states.of(job).step == 2)
                await asyncio.sleep(0.1)
            began = time.monotonic()
            with pytest.raises(StoreTroubleError):
                await generator.cancel(job)
            assert time.monotonic() - began < 3
            assert (generator.dispatcher.num_running, generator.dispatcher.num_waiting, executor.images_in_flight) == (
                0,
                0,
                0,
            )
            steps = executor.steps_taken
            await asyncio.sleep(0.1)
            assert executor.steps_taken == steps
            generator.storage.store.before.setdefault("finish", generator.storage.store.before["cancel"])
        await until(lambda: generator.dispatcher.live == {})
        found = await generator.find(job.id, None)
        assert found.status in ({"cancelled"} if stage in {"waiting", "drawing"} else {"cancelled", "done"})
        await until(
            lambda: (
                {path.name[:16] for path in tmp_path.glob("results/*/*")} == ({job.id} if found.has_files else set())
            )
        )


# --- files and rows ---------------------------------------------------------------------------------------------------


async def test_a_job_cancelled_between_two_of_its_pictures_leaves_no_files(tmp_path):
    async with running(FakeExecutor(), tmp_path) as generator:
        go_on, num_written = threading.Event(), []

        def second_is_slow():
            num_written.append(1)
            if len(num_written) == 2:
                go_on.wait(10)

        generator.storage.files.before["write"] = second_is_slow
        job = await generator.submit(wish(is_bound=False, num_inference_steps=1, num_images=2))
        await until(lambda: len(num_written) == 2)
        assert len(list(tmp_path.glob("results/*/*"))) == 1
        assert (await generator.cancel(job.record)).status == "cancelled"
        go_on.set()
        await until(lambda: list(tmp_path.glob("results/*/*")) == [])


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_happens_in_whatever_moment_every_picture_file_has_its_row(tmp_path, seed):
    """Cancels, hang-ups, lost engines, files that cannot be written or deleted, retention: all at random moments."""
    chance = random.Random(seed)
    executor = FakeExecutor(step_s=0.001, max_images_in_flight=6)
    open_storage = partial(open_faulty, retry_s=0.01)  # so that most jobs are accepted between two faults
    async with running(executor, tmp_path, open_storage=open_storage, max_queued_requests=1000) as generator:
        storage = generator.storage

        def slow_or_failing():
            time.sleep(chance.uniform(0, 0.004))
            if chance.random() < 0.1:
                raise StoreUnavailableError("I/O error")

        storage.files.before |= {"write": slow_or_failing, "delete": slow_or_failing}

        async def one(number):
            await asyncio.sleep(chance.uniform(0, 0.6))
            new = wish(
                is_bound=number % 2 == 0, num_inference_steps=chance.randint(1, 4), num_images=chance.randint(1, 3)
            )
            drawing = asyncio.create_task(generator.draw(new))
            if number % 3:
                await asyncio.sleep(chance.uniform(0, 0.08))
                if new.is_bound:
                    drawing.cancel()
                else:
                    with contextlib.suppress(ServerError):
                        await generator.cancel(await generator.find(new.id, None))
            await asyncio.gather(drawing, return_exceptions=True)

        async def disturb():
            for _ in range(8):
                await asyncio.sleep(0.1)
                executor.restart()
                await storage.tidy(KEEP_ALL, lambda: generator.dispatcher.live, now_s=time.time())

        await asyncio.gather(disturb(), *(one(number) for number in range(60)))
        await until(lambda: generator.dispatcher.live == {} and not generator.dispatcher._background)
        storage.files.before.clear()
        await storage.tidy(KEEP_ALL, lambda: generator.dispatcher.live, now_s=time.time())
        with_files = {
            record.id: record
            for record in await storage.store.page(JobQuery(key_id=None, statuses=["done"], limit=1000))
        }
        files = {path.name for path in tmp_path.glob("results/*/*")}
        assert files == {
            f"{job_id}.{index}" for job_id, record in with_files.items() for index in range(len(record.outcome.images))
        }
        assert len(files) > 5


async def test_files_given_up_before_the_disk_failed_are_deleted_at_once(tmp_path):
    async with running(FakeExecutor(), tmp_path) as generator:
        storage = generator.storage
        await generator.draw(wish(num_inference_steps=1))

        def fails_after_a_portion(_):
            raise StoreUnavailableError("I/O error")

        storage.store.after["expire"] = fails_after_a_portion
        await storage.tidy(KEEP_ALL, lambda: (), now_s=time.time() + 7200)
        assert list(tmp_path.glob("results/*/*")) == []


async def test_files_that_could_not_be_deleted_are_deleted_the_next_time(tmp_path):
    async with running(FakeExecutor(), tmp_path) as generator:
        storage, now_s = generator.storage, time.time() + 7200
        ids = [(await generator.draw(wish(num_inference_steps=1))).record.id for _ in range(3)]
        failures = iter([None, StoreUnavailableError("I/O error")])

        def second_fails():
            if error := next(failures, None):
                raise error

        storage.files.before["delete"] = second_fails
        await storage.tidy(KEEP_ALL, lambda: (), now_s=now_s)
        assert len(list(tmp_path.glob("results/*/*"))) == 2
        assert not any([(await generator.find(job_id, None)).has_files for job_id in ids])
        await storage.tidy(KEEP_ALL, lambda: (), now_s=now_s)
        assert list(tmp_path.glob("results/*/*")) == []


# --- thumbnails -------------------------------------------------------------------------------------------------------


async def test_however_many_thumbnails_are_asked_for_a_job_is_drawn_meanwhile(tmp_path):
    """None of asyncio's own threads, which read and write pictures, makes a thumbnail."""
    blocked, making = threading.Event(), []

    def slow(data):
        making.append(threading.current_thread().name)
        blocked.wait(20)
        return data

    async with running(FakeExecutor(), tmp_path) as generator:
        thumbnails = Thumbnails(slow)
        asked = [asyncio.create_task(thumbnails.make(b"x")) for _ in range(100)]
        try:
            await until(lambda: making)
            async with asyncio.timeout(5):
                await asyncio.gather(*(generator.draw(wish(num_inference_steps=1)) for _ in range(4)))
            assert len(making) == 1
        finally:
            blocked.set()
        assert await asyncio.gather(*asked) == [b"x"] * 100
        assert {name.partition("_")[0] for name in making} == {"thumbnails"}
        thumbnails.close()


# --- a job that takes the server along --------------------------------------------------------------------------------


async def crash(tmp_path, *jobs):
    """What a killed server leaves: these jobs are running, and nobody put them back."""
    store = await JobStore.open(tmp_path)
    recovered = await store.recover(time.time())
    for job in jobs:
        await store.begin(job.id, time.time())
    await store.close()
    return {record.id: record for record in recovered}


async def test_a_job_that_took_the_server_along_three_times_waits_for_an_operator(tmp_path):
    job, beside = wish(is_bound=False), wish(is_bound=False)
    store = await JobStore.open(tmp_path)
    for new in (job, beside):
        await store.add(new)
    await store.close()
    await crash(tmp_path, job, beside)
    executor = OnSignal()
    async with running(executor, tmp_path) as generator:
        await until(lambda: len(executor.started) == 2)  # after one loss of the server they may still run together
    await crash(tmp_path, job, beside)
    executor = OnSignal()
    async with running(executor, tmp_path) as generator:
        await until(lambda: executor.started)
        await asyncio.sleep(0.1)
        assert [job.id for job in executor.started] == [job.id], "the last attempt is made alone"
        assert (await generator.find(job.id, None)).crashes == MAX_ATTEMPTS - 1, "an orderly stop does not count"
    await crash(tmp_path, job)
    executor = OnSignal()
    async with running(executor, tmp_path) as generator:
        record = await generator.find(job.id, None)
        assert (record.status, record.outcome.failure.code) == ("dead", "job_dead")
        assert "until an operator requeues it" in record.outcome.failure.detail
        await until(lambda: [started.id for started in executor.started] == [beside.id])
        executor.go_on.set()
        await until(lambda: generator.dispatcher.num_running == 0)
        revived = await generator.requeue(record)
        assert (revived.crashes, revived.losses) == (0, 0)
        await until(lambda: generator.dispatcher.num_running + generator.dispatcher.num_waiting == 0)
        assert (await generator.find(job.id, None)).status == "done"


@pytest.mark.parametrize("num_stops", [5])
async def test_orderly_stops_never_make_a_job_suspect(tmp_path, num_stops):
    job = wish(is_bound=False)
    for _ in range(num_stops):
        executor = FakeExecutor(step_s=60)
        async with running(executor, tmp_path) as generator:
            if generator.dispatcher.num_running + generator.dispatcher.num_waiting == 0:
                await generator.submit(job)
            await until(lambda executor=executor: executor.images_in_flight == 1)
            record = await generator.find(job.id, None)
            assert (record.crashes, record.losses) == (0, 0)
