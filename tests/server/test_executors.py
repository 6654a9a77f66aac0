"""The two executors that run a real engine behave alike; the child process can also be lost, hung and replaced."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
import pytest_asyncio

from engine.engine import Engine
from engine.errors import InvalidParamsError, ModelLoadError
from engine.models.fake import FakeModel
from engine.params import GenerationParams
from server.errors import EngineLostError
from server.executors.base import Executor, Job, JobEvent
from server.executors.child_process import ChildProcessExecutor
from server.executors.in_process import InProcessExecutor
from server.executors.messages import Configure, EngineInfo, ImageReady, JobDone, Progress

pytestmark = pytest.mark.asyncio(loop_scope="module")

FAKE = Configure(model_id="fake", device="cpu", dtype="float32", rows_per_call=8)


def job(job_id: str = "a", **wishes: object) -> Job:
    ordinary = {"prompt": "a cat", "seed": 7, "num_inference_steps": 4, "height": 64, "width": 64}
    return Job(id=job_id, params=GenerationParams(**(ordinary | wishes)), output_format="png")


async def events_of(executor: Executor, wanted: Job) -> list[JobEvent]:
    async with asyncio.timeout(30), aclosing(executor.run(wanted)) as events:
        return [event async for event in events]


def in_process() -> InProcessExecutor:
    info = EngineInfo("fake", "cpu", "CPU", "float32", 512, 512, rows_per_call=8, max_images_in_flight=4)
    return InProcessExecutor(Engine(FakeModel(), rows_per_call=8), info)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def child() -> AsyncIterator[ChildProcessExecutor]:
    """One engine process for the whole module: starting one imports torch."""
    running = ChildProcessExecutor(FAKE)
    await running.start()
    await ready(running)
    yield running
    await running.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def local() -> AsyncIterator[InProcessExecutor]:
    running = in_process()
    await running.start()
    yield running
    await running.stop()


@pytest.fixture(params=["in process", "child process"])
def executor(request: pytest.FixtureRequest, local: InProcessExecutor, child: ChildProcessExecutor) -> Executor:
    return local if request.param == "in process" else child


async def ready(executor: Executor) -> None:
    async with asyncio.timeout(60):
        while executor.state != "ready":
            await asyncio.sleep(0.05)


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
        steps = [event.step for event in events if isinstance(event, Progress) and event.image_index == index]
        assert steps == [1, 2, 3, 4]


async def test_both_executors_draw_the_same_bytes(local: InProcessExecutor, child: ChildProcessExecutor):
    assert _files(await events_of(local, job())) == _files(await events_of(child, job()))


async def test_jobs_side_by_side_do_not_mix(executor: Executor):
    alone = {seed: await events_of(executor, job(f"alone {seed}", seed=seed)) for seed in range(5)}
    together = await asyncio.gather(*(events_of(executor, job(f"job {seed}", seed=seed)) for seed in range(5)))
    for seed, events in enumerate(together):
        assert _files(events) == _files(alone[seed])


async def test_a_wish_that_the_engine_refuses_comes_back_as_field_rule_and_value(executor: Executor):
    """diffusers' own timesteps repeat beyond what its DDIM can take; the table is refused, not mangled."""
    with pytest.raises(InvalidParamsError) as caught:
        await events_of(executor, job(sampler="DPMSolver++", num_inference_steps=150, prompt="x", noise_schedule="??"))
    assert caught.value.field == "noise_schedule"


async def test_closing_the_stream_cancels_and_frees_the_engine(executor: Executor):
    async with aclosing(executor.run(job("long", num_inference_steps=150, num_images=8))) as events:
        await anext(events)
    done = await events_of(executor, job("next"))
    assert isinstance(done[-1], JobDone)


async def test_a_stopped_executor_ends_its_jobs():
    running = in_process()
    await running.start()
    stream = running.run(job("long", num_inference_steps=150, num_images=8, height=512, width=512))
    await anext(stream)
    stopping = asyncio.create_task(running.stop())
    with pytest.raises(EngineLostError):
        async with asyncio.timeout(10):
            async for _ in stream:
                pass
    await stopping
    assert running.state == "stopped"


async def test_a_killed_engine_fails_its_jobs_and_is_replaced(child: ChildProcessExecutor):
    first = child.process_id
    assert first is not None
    stream = child.run(job("long", num_inference_steps=150, num_images=8, height=512, width=512))
    await anext(stream)
    os.kill(first, signal.SIGKILL)
    with pytest.raises(EngineLostError, match="ended while drawing"):
        async with asyncio.timeout(10):
            async for _ in stream:
                pass
    await ready(child)
    assert child.process_id != first
    assert isinstance((await events_of(child, job()))[-1], JobDone)


async def test_an_engine_that_cannot_be_started_is_tried_again(monkeypatch: pytest.MonkeyPatch):
    """No descriptors left, say; the supervisor must not die of it in silence."""
    start = asyncio.create_subprocess_exec
    refusals = iter([OSError("too many open files (injected)")])

    async def sometimes(*arguments: object, **options: object) -> asyncio.subprocess.Process:
        for refusal in refusals:
            raise refusal
        return await start(*arguments, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", sometimes)
    running = ChildProcessExecutor(FAKE)
    await running.start()
    await ready(running)
    await running.stop()


async def test_a_hung_engine_is_silent_and_the_loop_goes_on(child: ChildProcessExecutor):
    assert child.process_id is not None
    os.kill(child.process_id, signal.SIGSTOP)
    try:
        await asyncio.sleep(1.5)
        assert child.silence_s > 1.2
    finally:
        os.kill(child.process_id, signal.SIGCONT)
    async with asyncio.timeout(10):
        while child.silence_s > 1.0:
            await asyncio.sleep(0.05)


async def test_an_idle_engine_answers_pings(child: ChildProcessExecutor):
    await asyncio.sleep(2.5)
    assert child.silence_s < 2.0


async def test_a_model_that_cannot_be_loaded_is_told_once(tmp_path: Path):
    (tmp_path / "model_index.json").write_text("{}")
    running = ChildProcessExecutor(Configure(model_id=str(tmp_path), device="cpu", dtype="float32"))
    await running.start()
    async with asyncio.timeout(60):
        with pytest.raises(ModelLoadError, match="no whole model in diffusers layout"):
            await running.wait_until_ready()
    assert running.state == "failed"
    assert running.failure is not None
    assert str(tmp_path) in running.failure
    await running.stop()


async def test_an_engine_ends_when_its_executor_stops():
    running = ChildProcessExecutor(FAKE)
    await running.start()
    while running.process_id is None:
        await asyncio.sleep(0.01)
    pid = running.process_id
    await running.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def _files(events: list[JobEvent]) -> list[bytes]:
    return [event.data for event in events if isinstance(event, ImageReady)]
