"""What an executor tells of its engine's health: why it was replaced, and how often memory ran out."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial

import pytest
import torch

from engine.engine import Engine
from engine.errors import DoesNotFitError
from engine.models.base import EncodedPrompt
from engine.models.fake import FakeModel
from engine.params import GenerationParams
from engine.prompts.prompt import Prompt
from server.errors import EngineLostError
from server.executors.base import Job
from server.executors.child_process import ChildProcessExecutor
from server.executors.engine_process import EngineProcess
from server.executors.messages import Configure, DeviceMemory, OutOfMemory, Pong
from server.worker.engine_worker import EngineWorker
from server.worker.fake_pictures import fake_info
from server.worker.in_process import InProcessExecutor


def job(prompt: str = "a cat", **wishes: object) -> Job:
    ordinary = {"seed": 7, "num_inference_steps": 2, "height": 64, "width": 64}
    return Job(id="a", params=GenerationParams(prompt=prompt, **(ordinary | wishes)), output_format="png")


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not happened():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def child(model_id: str = "fake-engine:5", **options: float) -> AsyncIterator[ChildProcessExecutor]:
    executor = ChildProcessExecutor(Configure(model_id=model_id, device="cpu", dtype="float32"), **options)
    await executor.start()
    try:
        yield executor
    finally:
        await executor.stop()


async def test_an_engine_that_was_killed_has_ended_and_one_that_hangs_was_silent():
    async with child(watchdog_s=0.6) as executor:
        await executor.wait_until_ready()
        assert executor.vitals.process_id == executor.process_id
        assert set(executor.vitals.restarts.values()) == {0}
        os.kill(executor.process_id, signal.SIGKILL)
        await until(lambda: executor.vitals.restarts["ended"] == 1)
        await executor.wait_until_ready()
        with suppress(EngineLostError):
            async with aclosing(executor.run(job("hang"))) as events:
                async for _ in events:
                    pass
        await until(lambda: executor.vitals.restarts["silent"] == 1)
        assert (executor.restarts, sum(executor.vitals.restarts.values())) == (2, 2)


async def test_an_engine_that_does_not_get_on_with_loading_is_told_apart():
    async with child("fake-engine:5:60000", load_timeout_s=0.3, watchdog_s=0.4) as executor:
        await until(lambda: executor.vitals.restarts["slow_start"] == 1)
        assert executor.restarts == 1


async def test_an_engine_that_cannot_be_started_is_told_apart(monkeypatch):
    start = EngineProcess.start
    refusals = iter([OSError("too many open files (injected)")])

    def start_later(configuration: Configure) -> EngineProcess:
        for refusal in refusals:
            raise refusal
        return start(configuration)

    monkeypatch.setattr(EngineProcess, "start", start_later)
    async with child() as executor:
        await until(lambda: executor.vitals.restarts["not_started"] == 1)
        await executor.wait_until_ready()


class NoRoom(FakeModel):
    """Runs out of memory at a chosen kind of work."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self._kind = kind

    def encode_prompt(self, prompt: Prompt, num_chunks: int = 1) -> EncodedPrompt:
        self._refuse("encode")
        return super().encode_prompt(prompt, num_chunks)

    def denoise(self, latents: torch.Tensor, time: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        self._refuse("step")
        return super().denoise(latents, time, prompt)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        self._refuse("decode")
        return super().decode(latents)

    def count_truncated_tokens(self, prompt: str) -> int:
        self._refuse("prepare")
        return super().count_truncated_tokens(prompt)

    def _refuse(self, kind: str) -> None:
        if kind == self._kind:
            raise torch.OutOfMemoryError("no room (injected)")


@pytest.mark.parametrize("kind", ["prepare", "encode", "step", "decode"])
async def test_memory_that_runs_out_is_counted_by_what_it_was_for(kind):
    executor = InProcessExecutor(partial(EngineWorker, Engine(NoRoom(kind), rows_per_call=2)), fake_info("fake", 1))
    await executor.start()
    try:
        with pytest.raises(DoesNotFitError):
            async with asyncio.timeout(20), aclosing(executor.run(job())) as events:
                async for _ in events:
                    pass
    finally:
        await executor.stop()
    assert {name: count for name, count in executor.vitals.out_of_memory.items() if count} == {kind: 1}


def test_memory_of_the_device_is_what_the_engine_told_last_and_unknown_of_the_next_one():
    executor = ChildProcessExecutor(Configure(model_id="fake-engine", device="cpu", dtype="float32"))
    assert executor.vitals.device_memory is None
    memory = DeviceMemory(total_bytes=1000, free_bytes=400, reserved_bytes=500, allocated_bytes=300)
    executor._receive(Pong(1, memory))
    assert executor.vitals.device_memory == memory
    executor._engine_begins()
    assert executor.vitals.device_memory is None


def test_running_out_of_memory_is_no_sign_of_the_drawing_threads_life():
    """Another thread of the engine tells it too, even while that one hangs."""
    executor = ChildProcessExecutor(Configure(model_id="fake-engine", device="cpu", dtype="float32"))
    executor._last_sign_of_life = time.monotonic() - 100
    executor._receive(OutOfMemory("prepare"))
    assert executor._seconds_without_sign > 99
