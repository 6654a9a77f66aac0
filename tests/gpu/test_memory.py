"""What the engine does when the GPU's memory is really full."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

import pytest
import torch

from engine.engine import Engine
from engine.errors import DoesNotFitError
from engine.events import Failed, Finished
from engine.models.stable_diffusion import StableDiffusion
from engine.prompts.prompt import Prompt
from tests.engine.drawing import add_all, run
from tests.gpu.wishes import files_of, wish

pytestmark = pytest.mark.gpu


def peak_bytes(work: Callable[[], object]) -> int:
    """The most memory that some work holds beyond what is held before it."""
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    work()
    return torch.cuda.max_memory_allocated() - before


@contextlib.contextmanager
def memory_left(wanted_bytes: int) -> Iterator[None]:
    """Fill the GPU's memory up to so much."""
    torch.cuda.empty_cache()
    free_bytes, _ = torch.cuda.mem_get_info()
    assert free_bytes > wanted_bytes, "the GPU is already full"
    filling = torch.empty(free_bytes - wanted_bytes, dtype=torch.uint8, device="cuda")
    try:
        yield
    finally:
        del filling
        torch.cuda.empty_cache()


def between(less: float, more: float) -> int:
    """As far from either as can be, by ratio; the test would show nothing if they were close."""
    assert more > 1.5 * less, (less, more)
    return int(math.sqrt(less * more))


def call_bytes(model: StableDiffusion, rows: int) -> int:
    """What one call of the network needs at the model's own size."""
    info = model.info
    latents = torch.randn(rows, *info.latent_shape(info.native_height, info.native_width)).to(info.device)
    with torch.inference_mode():
        text = model.encode_prompt(Prompt("a cat"))
        time = model.embed_time(torch.tensor([500.0]).to(info.device), text).expand(rows, -1).contiguous()
        prompt = text.attended.expand(rows, -1, -1).contiguous()
        return peak_bytes(lambda: model.denoise(latents, time, prompt))


def test_a_picture_that_is_too_large_fails_clearly_and_the_next_one_is_drawn(half):
    model = half("dreamlet")
    engine = Engine(model)
    small, large = wish(model), wish(model, height=2048, width=2048, num_inference_steps=1)
    before = files_of(engine, [small])
    small_bytes = peak_bytes(lambda: files_of(engine, [small]))
    large_bytes = peak_bytes(lambda: files_of(engine, [large]))

    with memory_left(between(small_bytes, large_bytes)):
        add_all(engine, [large])
        (failed,) = [event for event in run(engine) if isinstance(event, Failed | Finished)]
        assert isinstance(failed, Failed)
        assert isinstance(failed.error, DoesNotFitError), failed
        assert "2048x2048" in str(failed.error)
        assert files_of(engine, [small]) == before

    assert files_of(engine, [large]), "with the memory back, it fits again"


def test_a_batch_that_is_too_large_shrinks_and_nobody_loses_a_picture(half):
    model = half("sd15")
    rows = 64
    picture = peak_bytes(lambda: files_of(Engine(model), [wish(model, num_inference_steps=1)]))
    engine = Engine(model, rows_per_call=rows)
    add_all(engine, [wish(model, num_inference_steps=2, seed=seed) for seed in range(rows // 2)])
    # Half as much again for a picture alone: beside it lie the others' latents, and memory in pieces.
    with memory_left(between(1.5 * picture, call_bytes(model, rows))):
        ends = [event for event in run(engine) if isinstance(event, Failed | Finished)]
    assert [type(event) for event in ends] == rows // 2 * [Finished], ends
    info = model.info
    assert engine._batch_scheduler.row_limit(info.latent_shape(info.native_height, info.native_width)[1:]) < rows
