"""What the generator makes of an executor that keeps its promises in an unusual way."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncGenerator
from decimal import Decimal

import msgspec
import pytest

from engine.errors import EngineError, InvalidParamsError
from engine.params import GenerationParams
from server.access.rate_limits import KeyLimits
from server.errors import EngineLostError, JobCancelledError, RateLimitedError
from server.executors.base import EngineBusyError, Job, JobEvent
from server.executors.messages import ImageReady, ModelsChanged
from server.executors.pool import EnginePool
from server.generator import ImageGenerator
from server.jobs.job_state import JobState
from server.store.errors import StoreUnavailableError
from server.store.record import LOCAL_KEY, NewJob
from server.store.storage import Retention
from server.worker.fake_executor import FakeExecutor
from tests.server.faulty_storage import full_disk, open_faulty


class LastPictureFirst(FakeExecutor):
    """Hands a job's pictures over in reverse, as engines that draw them side by side may."""

    async def run(self, job: Job) -> AsyncGenerator[JobEvent, None]:
        events = [event async for event in FakeExecutor.run(self, job)]
        pictures = [event for event in events if isinstance(event, ImageReady)]
        for event in (*pictures[::-1], events[-1]):
            yield event


async def accept_any(params: GenerationParams) -> None:
    """No model, no limits."""


@contextlib.asynccontextmanager
async def running(executor, folder, max_queued_requests=10, limits=None, open_storage=open_faulty):
    retention = Retention(results_s=3600, results_bytes=2**30, jobs_s=3600)
    generator = ImageGenerator(
        executor,
        folder,
        max_queued_requests=max_queued_requests,
        request_timeout_s=20,
        retention=retention,
        limits=KeyLimits(requests_per_minute=0, work_units_per_hour=0, jobs=0) if limits is None else limits,
        price_per_work_unit=Decimal("0.02"),
        check=accept_any,
        open_storage=open_storage,
    )
    await generator.start()
    try:
        yield generator
    finally:
        await generator.stop()


def wish(*, is_bound=True, **wishes):
    return NewJob(
        id=secrets.token_hex(8),
        key_id=LOCAL_KEY,
        user=None,
        params=GenerationParams(**{"prompt": "a cat", "seed": 1} | wishes),
        output_format="png",
        is_bound=is_bound,
        idempotency_key=None,
        request_digest=b"",
        created_at=time.time(),
    )


async def test_pictures_come_in_the_order_of_their_seeds_however_they_were_handed_over(tmp_path):
    async with running(LastPictureFirst(), tmp_path) as generator:
        _, images = await generator.draw(wish(seed=40, num_images=3))
    assert [image.seed for image in images] == [40, 41, 42]


class OnSignal(FakeExecutor):
    """Ends every job when it is told to, and not before."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = asyncio.Event()

    async def run(self, job: Job) -> AsyncGenerator[JobEvent, None]:
        events = [event async for event in FakeExecutor.run(self, job)]
        await self.go_on.wait()
        for event in events:
            yield event


async def test_a_hang_up_in_the_turn_in_which_its_turn_comes_leaks_no_slot(tmp_path):
    """The task that would have drawn it is cancelled before it has taken its first step."""
    executor = OnSignal()
    async with running(executor, tmp_path) as generator:
        for turns in range(12):  # whichever turn of the loop it is, one of these hang-ups is in it
            executor.go_on.clear()
            drawn = asyncio.create_task(generator.draw(wish(num_images=4)))
            hung_up = asyncio.create_task(generator.draw(wish(num_images=4)))
            await asyncio.sleep(0.05)
            executor.go_on.set()
            for _ in range(turns):
                await asyncio.sleep(0)
            hung_up.cancel()
            await asyncio.gather(drawn, hung_up, return_exceptions=True)
            async with asyncio.timeout(5):
                while (generator.dispatcher.num_images_in_flight, generator.dispatcher.num_waiting) != (0, 0):
                    await asyncio.sleep(0.005)
        _, images = await generator.draw(wish(num_images=4))
        assert len(images) == 4


async def test_whoever_begins_to_listen_just_after_the_end_of_a_job_is_told_its_end(tmp_path):
    """Between looking a job up and following it, an event stream waits for its turn; a short job ends meanwhile."""
    async with running(FakeExecutor(), tmp_path) as generator:
        looked_up = (await generator.submit(wish())).record
        assert [state async for state in generator.states.watch(looked_up, keep_alive_s=5)][-1].record.status == "done"
        states = [state async for state in generator.states.watch(looked_up, keep_alive_s=5)]
    assert [state.record.status for state in states] == ["done"]


async def until(condition, timeout_s=10.0):
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_cancel_that_a_full_disk_delays_while_its_job_begins_leaves_no_ghost(tmp_path):
    async with running(FakeExecutor(load_s=0.2, max_images_in_flight=1), tmp_path) as generator:
        job = await generator.submit(wish(is_bound=False))
        with full_disk(generator.storage, "begin", "cancel"):
            await until(lambda: generator.dispatcher.num_running == 1)
            cancelling = asyncio.create_task(generator.cancel(job.record))
            await asyncio.sleep(0.3)  # both have failed at least once
        assert (await cancelling).status in {"cancelled", "done"}
        await until(lambda: (generator.dispatcher.num_waiting, generator.dispatcher.num_running) == (0, 0))
        async with asyncio.timeout(5):
            while await generator.storage.trouble() is not None:
                await asyncio.sleep(0.05)
        _, images = await generator.draw(wish(seed=5))
        assert images[0].seed == 5


async def test_the_engine_sets_to_work_while_the_disk_does_and_nobody_is_told_before_it_is_done(tmp_path):
    executor, disk = FakeExecutor(), asyncio.Event()
    async with running(executor, tmp_path) as generator:
        generator.storage.store.before["begin"] = disk.wait
        job = (await generator.submit(wish(is_bound=False))).record
        await until(lambda: executor.started)
        await asyncio.sleep(0.05)
        state = generator.states.of(job)
        assert (state.record.status, state.step) == ("queued", 0)
        disk.set()
        states = [state async for state in generator.states.watch(job, keep_alive_s=5)]
    assert (states[-1].record.status, states[-1].record.attempt) == ("done", 1)


async def test_what_the_engine_made_while_the_disk_was_full_is_told_when_it_is_not(tmp_path):
    executor = FakeExecutor()
    async with running(executor, tmp_path) as generator:
        with full_disk(generator.storage, "begin"):
            drawing = asyncio.create_task(generator.draw(wish(seed=3)))
            await until(lambda: executor.started)
            await asyncio.sleep(0.7)  # longer than until the next try
            assert not drawing.done()
        record, images = await drawing
    assert (record.status, record.attempt, record.losses, len(executor.started)) == ("done", 1, 0, 1)
    assert [image.seed for image in images] == [3]


async def test_what_the_engine_refuses_before_the_disk_has_answered_is_told_with_field_rule_and_value(tmp_path):
    executor = FakeExecutor()
    async with running(executor, tmp_path) as generator:
        executor.fail_next(InvalidParamsError("num_inference_steps", "must be at most 50", 60))
        with full_disk(generator.storage, "begin"):
            drawing = asyncio.create_task(generator.draw(wish()))
            await until(lambda: executor.started)
            await asyncio.sleep(0.1)
        with pytest.raises(InvalidParamsError, match="num_inference_steps"):
            await drawing


async def test_a_job_cancelled_before_it_began_is_cancelled_whatever_the_engine_says(tmp_path):
    executor, disk = FakeExecutor(), asyncio.Event()
    async with running(executor, tmp_path) as generator:
        generator.storage.store.before["begin"] = disk.wait
        executor.fail_next(EngineError("no"))
        new = wish(is_bound=False)
        drawing = asyncio.create_task(generator.draw(new))
        await until(lambda: executor.started)
        await generator.cancel((await generator.submit(wish(is_bound=False))).record)
        cancelled = await generator.cancel(await generator.find(new.id, LOCAL_KEY))
        disk.set()
        with pytest.raises(JobCancelledError):
            await drawing
        await until(lambda: (generator.dispatcher.num_waiting, generator.dispatcher.num_running) == (0, 0))
    assert cancelled.status == "cancelled"


async def test_a_beginning_that_was_written_though_the_disk_said_no_is_taken_up(tmp_path):
    async with running(FakeExecutor(), tmp_path) as generator:
        tries = []

        def lie(attempt):
            tries.append(attempt)
            if len(tries) == 1:
                raise StoreUnavailableError("disk I/O error")
            return attempt

        generator.storage.store.after["begin"] = lie
        record, _ = await generator.draw(wish())
    assert tries == [1, None]
    assert (record.status, record.attempt) == ("done", 1)


async def test_a_listener_who_reads_slowly_is_not_told_the_end_late(tmp_path):
    async with running(FakeExecutor(step_s=0.01), tmp_path) as generator:
        job = await generator.submit(wish(is_bound=False, num_inference_steps=10))
        began = time.monotonic()
        async for state in generator.states.watch(job.record, keep_alive_s=15):
            last = state
            await asyncio.sleep(0.3)  # longer than the whole drawing
        assert last.record.status == "done"
        assert time.monotonic() - began < 10


async def test_restarts_of_the_server_do_not_count_as_lost_engines(tmp_path):
    job = wish(is_bound=False)
    for _ in range(4):
        executor = FakeExecutor(step_s=60)
        async with running(executor, tmp_path) as generator:
            if executor.started == [] and generator.dispatcher.num_running + generator.dispatcher.num_waiting == 0:
                await generator.submit(job)
            await until(lambda executor=executor: executor.images_in_flight == 1)
            record = await generator.find(job.id, LOCAL_KEY)
            assert record.losses == 0
    executor = FakeExecutor(step_s=0.05)
    async with running(executor, tmp_path) as generator:
        await until(lambda: executor.images_in_flight == 1)
        executor.restart()
        record = await generator.find(job.id, LOCAL_KEY)
        last = None
        async with asyncio.timeout(10):
            async for state in generator.states.watch(record, keep_alive_s=1):
                last = state or last
        assert last is not None
        assert (last.record.status, last.record.losses) == ("done", 1)
        assert last.record.attempt == 6


async def test_a_job_cancelled_while_its_end_was_being_written_leaves_no_files(tmp_path):
    async with running(FakeExecutor(), tmp_path) as generator:
        cancelled = asyncio.Event()
        generator.storage.store.before["finish"] = cancelled.wait
        job = await generator.submit(wish(is_bound=False, num_inference_steps=1))
        await until(lambda: list(tmp_path.glob("results/*/*")) != [])
        assert (await generator.cancel(job.record)).status == "cancelled"
        cancelled.set()
        await until(lambda: list(tmp_path.glob("results/*/*")) == [])


def keyed(idempotency_key, **wishes):
    """A job of somebody with a key, for one work unit."""
    params = {"num_inference_steps": 28, "height": 512, "width": 512} | wishes
    return msgspec.structs.replace(
        wish(is_bound=False, **params), key_id="ann", idempotency_key=idempotency_key, request_digest=b"d"
    )


async def test_repeats_hold_no_place_that_somebody_else_would_be_refused_for(tmp_path):
    limits = KeyLimits(requests_per_minute=0, work_units_per_hour=2, jobs=2)
    async with running(OnSignal(), tmp_path, 2, limits) as generator:
        first = await generator.submit(keyed("once"))
        repeats = [generator.submit(keyed("once")) for _ in range(20)]
        *found, new = await asyncio.gather(*repeats, generator.submit(keyed(None)))
        assert {state.record.id for state in found} == {first.record.id}
        assert new.record.id != first.record.id


async def test_of_many_at_once_with_one_new_key_one_is_accepted_and_none_is_refused(tmp_path):
    limits = KeyLimits(requests_per_minute=0, work_units_per_hour=1, jobs=1)
    async with running(OnSignal(), tmp_path, 1, limits) as generator:
        states = await asyncio.gather(*(generator.submit(keyed("once")) for _ in range(20)))
        assert len({state.record.id for state in states}) == 1
        assert generator.dispatcher.num_waiting + generator.dispatcher.num_running == 1
        with pytest.raises(RateLimitedError):
            await generator.submit(keyed("another"))


async def test_jobs_that_are_being_written_down_have_their_places_already(tmp_path):
    limits = KeyLimits(requests_per_minute=0, work_units_per_hour=0, jobs=2)
    async with running(OnSignal(), tmp_path, 9, limits) as generator:
        together = (generator.submit(keyed(None)) for _ in range(3))
        another = generator.submit(msgspec.structs.replace(keyed(None), key_id="bob"))
        *hers, his = await asyncio.gather(*together, another, return_exceptions=True)
        assert [type(state) for state in hers] == [JobState, JobState, RateLimitedError]
        assert isinstance(his, JobState)


async def test_places_that_repeats_came_too_late_to_need_are_given_back(tmp_path):
    """Three at once that find nothing each take a place; two of them turn out to be repeats."""
    limits = KeyLimits(requests_per_minute=0, work_units_per_hour=4, jobs=4)
    async with running(OnSignal(), tmp_path, 4, limits) as generator:
        await asyncio.gather(*(generator.submit(keyed("once")) for _ in range(3)))
        for number in range(3):
            await generator.submit(keyed(f"another {number}"))
        with pytest.raises(RateLimitedError):
            await generator.submit(keyed(None))


async def ended(generator, *records):
    """The jobs when they have ended."""
    lives = [generator.dispatcher.live[record.id] for record in records]
    for live in lives:
        await live.ended.wait()
    return [live.record for live in lives]


async def test_two_engines_draw_side_by_side_and_one_goes_on_when_the_other_has_failed(tmp_path):
    a, b = FakeExecutor(step_s=60), FakeExecutor()
    async with running(EnginePool({"a": a, "b": b}), tmp_path) as generator:
        await until(lambda: a.state == b.state == "ready")
        slow = (await generator.submit(wish(is_bound=False))).record
        await generator.draw(wish())
        assert (len(a.started), len(b.started)) == (1, 1)
        a.die()
        assert generator.executor.state == "ready"
        [record] = await ended(generator, slow)
    assert (record.status, record.attempt, record.losses) == ("done", 2, 1)
    assert [job.attempt for job in a.started + b.started if job.id == slow.id] == [1, 2]


async def test_after_a_loss_another_engine_draws_the_job(tmp_path):
    bad, good = FakeExecutor(), FakeExecutor()
    bad.run = losing(bad)
    async with running(EnginePool({"bad": bad, "good": good}), tmp_path) as generator:
        await until(lambda: bad.state == good.state == "ready")
        [record] = await ended(generator, (await generator.submit(wish(is_bound=False))).record)
    assert (record.status, record.losses, len(bad.started)) == ("done", 1, 1)


async def test_a_full_engine_uses_up_no_attempt(tmp_path):
    executor = FakeExecutor()
    async with running(executor, tmp_path) as generator:
        await until(lambda: executor.state == "ready")
        for _ in range(4):
            executor.fail_next(EngineBusyError("full", retry_after_s=0.0))
            record = (await generator.submit(wish(is_bound=False))).record
        [record] = await ended(generator, record)
    assert (record.status, record.losses) == ("done", 0)


def losing(executor):
    """An engine's `run` that is lost with every job."""

    async def run(job):
        executor.started.append(job)
        raise EngineLostError("gone")
        yield

    return run


async def test_jobs_of_the_model_in_memory_go_before_one_that_would_change_it(tmp_path):
    executor = FakeExecutor(step_s=0.01, max_images_in_flight=1)
    async with running(executor, tmp_path) as generator:
        await executor.wait_until_ready()
        executor.say(ModelsChanged(("",), {"": 1, "other": 1}, budget_bytes=1))
        jobs = [await generator.submit(wish(model=model, is_bound=False)) for model in ("", "other", "", "")]
        for state in jobs:
            await generator.result(state.record)
        first, other, *later = [state.record.id for state in jobs]
        assert [job.id for job in executor.started] == [first, *later, other]
        executor.restart()
        await executor.wait_until_ready()
        assert executor.models is None
