"""The supervisor: an engine that ends, hangs, does not get on or grows is replaced, and one without a gateway ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path

import msgspec
import pytest

from engine.params import GenerationParams
from server.errors import EngineLostError
from server.executors import child_process
from server.executors.base import Job, JobEvent
from server.executors.child_process import ChildProcessExecutor
from server.executors.engine_process import EngineProcess
from server.executors.messages import Configure, JobDone, Progress, Ready, WorkDone
from server.worker.fake_pictures import fake_info
from tests.processes import REPOSITORY

FAKE_MODEL = "fake"
"""In a real engine process."""


def configure(model_id: str) -> Configure:
    return Configure(model_id=model_id, device="cpu", dtype="float32", rows_per_call=8, max_images_in_flight=4)


def job(job_id: str = "a", **wishes: object) -> Job:
    ordinary = {"prompt": "a cat", "seed": 7, "num_inference_steps": 4, "height": 64, "width": 64}
    return Job(id=job_id, params=GenerationParams(**(ordinary | wishes)), output_format="png")


@asynccontextmanager
async def running(model_id: str = "fake-engine:5", **options: float) -> AsyncIterator[ChildProcessExecutor]:
    executor = ChildProcessExecutor(configure(model_id), **options)
    await executor.start()
    try:
        yield executor
    finally:
        await executor.stop()


async def ready(executor: ChildProcessExecutor) -> int:
    """Wait for a warm engine; its process id."""
    async with asyncio.timeout(60):
        await executor.wait_until_ready()
    assert executor.state == "ready"
    assert executor.process_id is not None
    return executor.process_id


async def until(happened: Callable[[], bool], timeout_s: float = 20) -> None:
    async with asyncio.timeout(timeout_s):
        while not happened():
            await asyncio.sleep(0.01)


async def drawn(executor: ChildProcessExecutor, wanted: Job) -> list[JobEvent]:
    async with asyncio.timeout(30):
        return [event async for event in executor.run(wanted)]


async def lost(executor: ChildProcessExecutor, wanted: Job) -> EngineLostError:
    with pytest.raises(EngineLostError) as caught:
        await drawn(executor, wanted)
    return caught.value


def exists(process_id: int) -> bool:
    """Whether it runs, or has not been waited for."""
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("model_id", [FAKE_MODEL, "fake-engine:20"])
async def test_a_killed_engine_costs_its_jobs_an_attempt_and_is_replaced_at_once(model_id: str):
    async with running(model_id) as executor:
        first = await ready(executor)
        stream = executor.run(job("long", num_inference_steps=150, num_images=8, height=512, width=512))
        await anext(stream)
        os.kill(first, signal.SIGKILL)
        with pytest.raises(EngineLostError, match="ended while drawing"):
            async with asyncio.timeout(10):
                async for _ in stream:
                    pass
        assert executor.state == "loading"
        assert await ready(executor) != first
        assert isinstance((await drawn(executor, job()))[-1], JobDone)
        assert executor.restarts == 1


async def test_after_a_kill_in_the_middle_of_a_step_the_next_step_is_soon_taken():
    """
    Again and again: an engine that draws is never made to wait, however young it ends.
    """
    async with running("fake-engine:20") as executor:
        gaps: list[float] = []
        for attempt in range(5):
            process_id = await ready(executor)
            stream = executor.run(job(f"killed {attempt}", num_inference_steps=100))
            async for event in stream:
                if isinstance(event, Progress) and event.step == 3:
                    break
            os.kill(process_id, signal.SIGKILL)
            killed = time.monotonic()
            with pytest.raises(EngineLostError):
                async for _ in stream:
                    pass
            await ready(executor)
            async with aclosing(executor.run(job(f"again {attempt}", num_inference_steps=100))) as again:
                await anext(again)
            gaps.append(time.monotonic() - killed)
        assert max(gaps) < 3


async def test_engines_that_die_young_wait_longer_and_longer(monkeypatch: pytest.MonkeyPatch):
    """
    These are killed as soon as they are warm. The first one to have drawn something is replaced at once.
    """
    monkeypatch.setattr(child_process, "FIRST_BACKOFF_S", 0.4)
    async with running() as executor:
        waits: list[float] = []
        for has_drawn in (False, False, False, True, False):
            process_id = await ready(executor)
            if has_drawn:
                await drawn(executor, job())
            os.kill(process_id, signal.SIGKILL)
            killed = time.monotonic()
            await until(lambda known=process_id: executor.process_id not in {None, known})
            waits.append(time.monotonic() - killed)
        for wait, least in zip(waits, (0.4, 0.8, 1.6, 0.0, 0.4), strict=True):
            assert least <= wait < least + 0.35  # less than any backoff: one that has drawn waits for none


async def test_a_hung_engine_is_found_and_replaced():
    """
    Stopped, as one is that waits for a GPU which never answers.
    """
    async with running("fake-engine:20", watchdog_s=2) as executor:
        first = await ready(executor)
        drawing = asyncio.create_task(lost(executor, job("long", num_inference_steps=150)))
        await until(lambda: executor.work_times.longest_median_s() is not None)
        os.kill(first, signal.SIGSTOP)
        stopped = time.monotonic()
        longest_silence_s = 0.0
        while executor.state == "ready":
            longest_silence_s = max(longest_silence_s, executor.silence_s)
            await asyncio.sleep(0.01)
        assert time.monotonic() - stopped < 3
        assert longest_silence_s > 1.9
        assert "did not respond" in str(await drawing)
        assert await ready(executor) != first
        assert not exists(first)
        assert isinstance((await drawn(executor, job()))[-1], JobDone)


async def test_an_engine_whose_own_thread_hangs_is_replaced_though_its_process_lives():
    async with running("fake-engine:5", watchdog_s=0.5) as executor:
        first = await ready(executor)
        assert "did not respond" in str(await lost(executor, job(prompt="hang now")))
        assert await ready(executor) != first


async def test_a_hung_engine_that_has_nothing_to_do_is_replaced():
    async with running(watchdog_s=0.5) as executor:
        first = await ready(executor)
        os.kill(first, signal.SIGSTOP)
        await until(lambda: executor.process_id not in {None, first}, 5)
        await ready(executor)


async def test_an_idle_engine_answers_pings():
    async with running(watchdog_s=0.4) as executor:
        first = await ready(executor)
        await asyncio.sleep(1.2)
        assert executor.silence_s < 0.4
        assert (executor.process_id, executor.restarts) == (first, 0)


async def test_work_that_is_known_to_take_long_is_given_its_time():
    """
    Steps of 0.8 s, a watchdog of 0.3 s: twenty times the usual is 16 s.
    """
    async with running("fake-engine:800", watchdog_s=0.3) as executor:
        await ready(executor)
        executor.work_times.observe(WorkDone("step", 0.8, 8, 64, 64))
        assert isinstance((await drawn(executor, job(num_inference_steps=2)))[-1], JobDone)
        assert executor.restarts == 0


async def test_a_size_that_was_never_drawn_is_given_more_time():
    """
    The first 2048x2048 picture takes a thousand times as long as what is known.
    """
    async with running("fake-engine:800", watchdog_s=0.3) as executor:
        await ready(executor)
        executor.work_times.observe(WorkDone("step", 0.001, 8, 64, 64))
        large = job(num_inference_steps=2, height=2048, width=2048)
        assert isinstance((await drawn(executor, large))[-1], JobDone)
        assert executor.restarts == 0


async def test_the_gateway_s_own_pauses_are_not_held_against_the_engine():
    async with running(watchdog_s=0.4) as executor:
        first = await ready(executor)
        time.sleep(1.5)  # noqa: ASYNC251 - this process, stopped or starved
        await asyncio.sleep(0.5)
        assert (executor.process_id, executor.restarts) == (first, 0)


async def test_an_engine_that_gets_no_further_with_loading_is_replaced():
    async with running("fake-engine:5:60000", load_timeout_s=0.5, watchdog_s=0.2) as executor:
        await until(lambda: executor.process_id is not None)
        first = executor.process_id
        assert executor.silence_s == 0.0
        await until(lambda: executor.process_id not in {None, first}, 5)
        assert executor.state == "loading"
        assert executor.restarts == 1


async def test_an_engine_that_was_begun_before_is_taken_over_and_replaced_when_it_ends():
    """
    `serve` starts the first one while it imports; it may be ready, and have said so, before anybody listens.
    """
    begun = EngineProcess.start(configure("fake-engine:5"))
    await asyncio.sleep(0.5)
    executor = ChildProcessExecutor(configure("fake-engine:5"), begun=begun)
    await executor.start()
    try:
        assert await ready(executor) == begun.pid
        assert isinstance((await drawn(executor, job()))[-1], JobDone)
        os.kill(begun.pid, signal.SIGKILL)
        await until(lambda: executor.restarts == 1)
        assert await ready(executor) != begun.pid
        assert begun.returncode == -signal.SIGKILL
    finally:
        await executor.stop()


async def test_the_first_engine_is_ready_before_it_is_warm_and_another_one_after():
    """
    As long as a first step may take long, it is given the time that loading has.
    """
    first = msgspec.structs.replace(configure(FAKE_MODEL), warms_up_first=False)
    executor = ChildProcessExecutor(first, watchdog_s=7.0, load_timeout_s=77.0)
    await executor.start()
    try:
        process_id = await ready(executor)
        assert "warm_up" not in executor.load_seconds
        assert executor.allowed_silence_s == 77.0
        await until(lambda: executor.allowed_silence_s == 7.0, 90)  # warm, in idle time; diffusers is imported for it
        assert executor.work_times.median_s("decode", 1, 512, 512) is not None
        os.kill(process_id, signal.SIGKILL)
        await until(lambda: executor.restarts == 1)
        assert await ready(executor) != process_id
        assert "warm_up" in executor.load_seconds
        assert executor.allowed_silence_s == 7.0
    finally:
        await executor.stop()


async def test_warming_up_does_not_make_an_engine_useful():
    """
    One that is ready, warms up and dies, again and again, waits longer each time.
    """
    executor = ChildProcessExecutor(configure("fake-engine"))
    executor._receive(Ready(fake_info("fake-engine", 4)))
    executor._receive(WorkDone("step", 0.1, 8, 512, 512))
    assert not executor._was_of_use()
    executor._receive(WorkDone("step", 0.1, 8, 512, 512, {"a job": 2}))
    assert executor._was_of_use()


async def test_an_engine_that_cannot_be_started_is_tried_again(monkeypatch: pytest.MonkeyPatch):
    """
    No descriptors left, say; the supervisor must not die of it in silence.
    """
    start = EngineProcess.start
    refusals = iter([OSError("too many open files (injected)")])

    def sometimes(configuration: Configure) -> EngineProcess:
        for refusal in refusals:
            raise refusal
        return start(configuration)

    monkeypatch.setattr(EngineProcess, "start", sometimes)
    async with running() as executor:
        await ready(executor)


@pytest.mark.parametrize("model_id", [FAKE_MODEL, "fake-engine:5:60000"])
async def test_an_engine_ends_when_its_executor_stops_even_while_it_loads(model_id: str):
    async with running(model_id) as executor:
        await until(lambda: executor.process_id is not None)
        process_id = executor.process_id
        began = time.monotonic()
    assert time.monotonic() - began < child_process.STOP_GRACE_S
    assert not exists(process_id)


@pytest.mark.parametrize("model_id", ["fake-engine:50", "fake-engine:5:60000", FAKE_MODEL])
async def test_an_engine_whose_gateway_was_killed_ends_itself(model_id: str):
    """
    Whether it draws, loads or has nothing to do.
    """
    gateway = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        GATEWAY,
        model_id,
        stdout=subprocess.PIPE,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
    )
    assert gateway.stdout is not None
    async with asyncio.timeout(60):
        engine = int(await gateway.stdout.readline())
    gateway.kill()
    try:
        await until(lambda: _has_ended(engine), 5)
    finally:
        with suppress(ProcessLookupError):
            os.kill(engine, signal.SIGKILL)
        await gateway.communicate()


GATEWAY = """
import asyncio, sys
from engine.params import GenerationParams
from server.executors.base import Job
from server.executors.child_process import ChildProcessExecutor
from server.executors.messages import Configure
from server.log_format import configure_logging

configure_logging("error", "json")  # to standard error

async def main():
    executor = ChildProcessExecutor(Configure(model_id=sys.argv[1], device="cpu", dtype="float32"))
    await executor.start()
    if not sys.argv[1].endswith("60000"):
        await executor.wait_until_ready()
        params = GenerationParams(prompt="a cat", seed=7, num_inference_steps=150, num_images=8)
        await anext(executor.run(Job(id="a", params=params, output_format="png")))
    while executor.process_id is None:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    print(executor.process_id, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def _has_ended(process_id: int) -> bool:
    """Whether it is gone, or only waits to be collected by a parent that may be slow to do so."""
    try:
        status = Path(f"/proc/{process_id}/stat").read_text(encoding="ascii")
    except OSError:
        return True
    return status.rpartition(")")[2].split()[0] in {"Z", "X"}
