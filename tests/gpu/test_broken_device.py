"""What becomes of an engine process whose device fails, and of one that has no device at all."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from engine.errors import ModelLoadError
from engine.params import GenerationParams
from server.errors import EngineLostError
from server.executors.base import Job
from server.executors.child_process import ChildProcessExecutor
from server.executors.messages import Configure, ImageReady
from tests.gpu.wishes import DREAMLET

START_S = 120.0

# Runs the engine's process as it is, except that one prompt makes a kernel read outside a tensor.
POISONED_ENGINE = """
import runpy, sys
import torch
from engine.models.stable_diffusion import StableDiffusion

read = StableDiffusion.encode_prompt

def encode_prompt(self, prompt, num_chunks=1):
    if prompt.text == "poison":
        torch.zeros(4, device="cuda")[torch.tensor([7], device="cuda")]
    return read(self, prompt, num_chunks)

StableDiffusion.encode_prompt = encode_prompt
_, _, module, line = sys.argv  # as in: python -m module line
sys.argv = [module, line]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def configuration(device: str) -> Configure:
    return Configure(model_id=str(DREAMLET), device=device, dtype="float16", rows_per_call=2)


async def picture(executor: ChildProcessExecutor, prompt: str, job_id: str) -> bytes:
    params = GenerationParams(prompt=prompt, seed=7, num_inference_steps=4, height=256, width=256)
    async with (
        asyncio.timeout(60),
        aclosing(executor.run(Job(id=job_id, params=params, output_format="png"))) as events,
    ):
        (image,) = [event async for event in events if isinstance(event, ImageReady)]
        return image.data


@pytest.fixture
async def executor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ChildProcessExecutor]:
    """A gateway's executor whose engine can be poisoned."""
    script, python = tmp_path / "poisoned_engine.py", tmp_path / "python"
    script.write_text(POISONED_ENGINE)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    executor = ChildProcessExecutor(configuration("cuda"))
    await executor.start()
    yield executor
    await executor.stop()


@pytest.mark.gpu
async def test_a_device_that_fails_ends_its_engine_and_the_next_engine_draws_the_same_bytes(executor):
    async with asyncio.timeout(START_S):
        await executor.wait_until_ready()
    first_process = executor.process_id
    before = await picture(executor, "a red ball", "before")

    with pytest.raises(EngineLostError, match="ended while drawing"):
        await picture(executor, "poison", "poison")

    async with asyncio.timeout(START_S):
        await executor.wait_until_ready()
    assert executor.process_id != first_process
    assert await picture(executor, "a red ball", "after") == before


async def test_a_gpu_that_torch_cannot_find_is_told_and_not_replaced_by_the_cpu(monkeypatch):
    """Needs no GPU: one that is there is hidden."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    executor = ChildProcessExecutor(configuration("cuda"))
    await executor.start()
    try:
        async with asyncio.timeout(START_S):
            with pytest.raises(ModelLoadError, match=r"DEVICE=cuda, but torch \S+ finds no GPU it can use here"):
                await executor.wait_until_ready()
    finally:
        await executor.stop()
    assert executor.info is None
