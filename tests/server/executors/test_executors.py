"""Every executor behaves alike: the fake one, and an engine in this process, in one of its own, and faked in one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio
import torch

from engine.errors import InvalidParamsError, ModelLoadError
from engine.models.random_model import make_random_model
from engine.params import GenerationParams
from server.errors import EngineLostError
from server.executors.base import Executor, Job, JobEvent
from server.executors.child_process import ChildProcessExecutor
from server.executors.messages import Configure, ImageReady, JobDone, LoadProgress, Preview, Progress, WorkDone
from server.worker.engine_worker import EngineWorker
from server.worker.fake_executor import FakeExecutor
from server.worker.in_process import InProcessExecutor
from server.worker.model_hash import model_hashes
from server.worker.start_up import start_engine

pytestmark = pytest.mark.asyncio(loop_scope="module")

FAKE_ENGINE = Configure(model_id="fake-engine:2", device="cpu", dtype="float32", max_images_in_flight=4)


def job(job_id: str = "a", **wishes: object) -> Job:
    ordinary = {"prompt": "a cat", "seed": 7, "num_inference_steps": 4, "height": 64, "width": 64}
    params = GenerationParams(**(ordinary | wishes))
    return Job(id=job_id, params=params, output_format="png")


async def events_of(executor: Executor, wanted: Job) -> list[JobEvent]:
    async with asyncio.timeout(60), aclosing(executor.run(wanted)) as events:
        return [event async for event in events]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Configure:
    """A real model with random weights: milliseconds a step."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    make_random_model(folder, seed=1)
    return Configure(model_id=str(folder), device="cpu", dtype="float32", rows_per_call=8)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """Another number of threads may mean other bits, and on a busy machine much time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(before)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fake() -> AsyncIterator[FakeExecutor]:
    running = FakeExecutor(step_s=0.002, max_images_in_flight=4)
    await running.start()
    yield running
    await running.stop()


@pytest.fixture(scope="module")
def start_up() -> list[LoadProgress | WorkDone]:
    """What the engine in this process told while it started."""
    return []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def local(tiny: Configure, start_up: list[LoadProgress | WorkDone]) -> AsyncIterator[InProcessExecutor]:
    engine, info = start_engine(tiny, start_up.append)
    worker = partial(EngineWorker, engine, model_hash=model_hashes(tiny, prefer_fp16=False))  # it is written into files
    running = InProcessExecutor(worker, info)
    await running.start()
    yield running
    await running.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def child(tiny: Configure) -> AsyncIterator[ChildProcessExecutor]:
    running = ChildProcessExecutor(tiny)
    await running.start()
    yield running
    await running.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fake_process() -> AsyncIterator[ChildProcessExecutor]:
    running = ChildProcessExecutor(FAKE_ENGINE)
    await running.start()
    yield running
    await running.stop()


@pytest_asyncio.fixture(params=["fake", "local", "child", "fake_process"], loop_scope="module")
async def executor(
    request: pytest.FixtureRequest,
    fake: FakeExecutor,
    local: InProcessExecutor,
    child: ChildProcessExecutor,
    fake_process: ChildProcessExecutor,
) -> Executor:
    chosen: Executor = {"fake": fake, "local": local, "child": child, "fake_process": fake_process}[request.param]
    async with asyncio.timeout(90):
        await chosen.wait_until_ready()
    return chosen


async def test_a_job_tells_its_steps_its_pictures_and_its_end_in_order(executor: Executor):
    events = await events_of(executor, job(num_images=2))
    assert isinstance(events[-1], JobDone)
    images = [event for event in events if isinstance(event, ImageReady)]
    assert [(image.image_index, image.seed, image.media_type) for image in images] == [
        (0, 7, "image/png"),
        (1, 8, "image/png"),
    ]
    assert all(image.data.startswith(b"\x89PNG") for image in images)
    assert images[0].data != images[1].data
    for index in (0, 1):
        steps = [event for event in events if isinstance(event, Progress) and event.image_index == index]
        assert [(step.step, step.steps) for step in steps] == [(1, 4), (2, 4), (3, 4), (4, 4)]


async def test_previews_come_while_a_job_is_drawn_and_only_then(executor: Executor):
    events = await events_of(executor, job("looked at", num_inference_steps=12))
    previews = [event for event in events if isinstance(event, Preview)]
    assert previews
    assert {(preview.job_id, preview.image_index) for preview in previews} == {("looked at.1", 0)}
    assert all(preview.step < 12 and preview.media_type.startswith("image/") for preview in previews)
    first_picture = next(index for index, event in enumerate(events) if isinstance(event, ImageReady))
    assert not any(isinstance(event, Preview) for event in events[first_picture:])


async def test_pictures_come_early_if_they_are_asked_for(executor: Executor):
    """The first one is; the second one is drawn to its end, and then the job is done."""
    wanted = job("hurried", num_images=2, num_inference_steps=30)
    events: list[JobEvent] = []
    async with asyncio.timeout(60), aclosing(executor.run(wanted)) as running:
        async for event in running:
            events.append(event)
            if isinstance(event, Progress) and (event.image_index, event.step) == (0, 2):
                assert await executor.finish_early(wanted, [0])
    steps = [max(event.step for event in events if isinstance(event, Progress) and event.image_index == index)
             for index in (0, 1)]  # fmt: skip
    assert steps[0] < steps[1] == 30
    assert [event.image_index for event in events if isinstance(event, ImageReady)] == [0, 1]
    assert isinstance(events[-1], JobDone)
    assert not await executor.finish_early(wanted, None), "it is over"


async def test_jobs_side_by_side_do_not_mix(executor: Executor):
    alone = {seed: await events_of(executor, job(f"alone {seed}", seed=seed)) for seed in range(5)}
    together = await asyncio.gather(*(events_of(executor, job(f"job {seed}", seed=seed)) for seed in range(5)))
    assert len({file for events in alone.values() for file in _files(events)}) == 5
    for seed, events in enumerate(together):
        assert _files(events) == _files(alone[seed])


async def test_closing_the_stream_cancels_and_frees_the_engine(executor: Executor):
    async with aclosing(executor.run(job("long", num_inference_steps=150, num_images=8, height=256))) as events:
        await anext(events)
    done = await events_of(executor, job("next"))
    assert isinstance(done[-1], JobDone)
    assert {event.job_id for event in done if not isinstance(event, WorkDone)} == {"next.1"}
    assert all("next.1" in event.rows_by_job for event in done if isinstance(event, WorkDone))


async def test_what_it_tells_of_itself_is_true_while_it_draws(executor: Executor):
    await events_of(executor, job())
    assert (executor.state, executor.failure, executor.restarts) == ("ready", None, 0)
    assert executor.silence_s < 5
    info = executor.info
    assert info is not None
    assert info.max_images_in_flight == 4


async def test_the_times_of_its_work_are_learned(executor: Executor):
    await events_of(executor, job())
    assert executor.info is not None
    times = executor.work_times
    assert times.median_s("step", executor.info.rows_per_call, 64, 64) > 0
    assert times.median_s("decode", 1, 64, 64) >= 0
    assert times.median_s("encode", 2, 0, 0) >= 0


@pytest.mark.usefixtures("local")
async def test_a_warm_engine_has_told_how_long_each_kind_of_work_takes(start_up: list[LoadProgress | WorkDone]):
    """
    Otherwise a slow machine's first decode would look like a hang to the watchdog.
    """
    work = [message for message in start_up if isinstance(message, WorkDone)]
    assert [(item.kind, item.rows, item.height, item.width) for item in work] == [
        ("encode", 2, 0, 0),
        ("step", 8, 64, 64),
        ("decode", 1, 64, 64),
    ]
    assert all(item.seconds > 0 for item in work)
    assert [message.phase for message in start_up if isinstance(message, LoadProgress)] == [
        "import_model",
        "load",
        "warm_up",
    ]


async def test_a_real_engine_draws_the_same_bytes_here_and_elsewhere(
    local: InProcessExecutor, child: ChildProcessExecutor
):
    await child.wait_until_ready()
    assert _files(await events_of(local, job())) == _files(await events_of(child, job()))


@pytest.mark.parametrize("place", ["local", "child"])
async def test_a_wish_that_the_engine_refuses_comes_back_as_field_rule_and_value(
    place: str, local: InProcessExecutor, child: ChildProcessExecutor
):
    """
    What only the model's own tables can tell: the gateway's checks let it through.
    """
    running = local if place == "local" else child
    await running.wait_until_ready()
    with pytest.raises(InvalidParamsError) as caught:
        await events_of(running, job(sampler="LCM", noise_schedule="default", num_inference_steps=60))
    assert (caught.value.field, caught.value.value) == ("num_inference_steps", 60)
    assert caught.value.rule.startswith("must suit the sampler LCM")


async def test_a_stopped_executor_ends_its_jobs(tiny: Configure):
    engine, info = start_engine(tiny, lambda _: None)
    running = InProcessExecutor(partial(EngineWorker, engine), info)
    await running.start()
    stream = running.run(job("long", num_inference_steps=150, num_images=8, height=256))
    await anext(stream)
    stopping = asyncio.create_task(running.stop())
    with pytest.raises(EngineLostError):
        async with asyncio.timeout(10):
            async for _ in stream:
                pass
    await stopping
    assert running.state == "stopped"


async def test_a_fake_one_can_be_lost_and_come_back():
    running = FakeExecutor(step_s=0.01)
    await running.start()
    await running.wait_until_ready()
    stream = running.run(job())
    await anext(stream)
    running.restart()
    with pytest.raises(EngineLostError):
        async for _ in stream:
            pass
    await running.wait_until_ready()
    assert isinstance((await events_of(running, job()))[-1], JobDone)
    assert running.restarts == 1
    await running.stop()


async def test_a_model_that_cannot_be_loaded_is_told_once(tmp_path: Path):
    (tmp_path / "model_index.json").write_text("{}")
    running = ChildProcessExecutor(Configure(model_id=str(tmp_path), device="cpu", dtype="float32"))
    await running.start()
    async with asyncio.timeout(60):
        with pytest.raises(ModelLoadError, match=r"is incomplete \(diffusers layout\)"):
            await running.wait_until_ready()
    assert running.state == "failed"
    assert running.failure is not None
    assert str(tmp_path) in running.failure
    await running.stop()


def _files(events: list[JobEvent]) -> list[bytes]:
    return [event.data for event in events if isinstance(event, ImageReady)]
