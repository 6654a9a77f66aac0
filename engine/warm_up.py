"""Makes a loaded model warm, and measures how many rows one call takes best on this device."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from statistics import median
from typing import Final

import torch

from engine.engine import Engine
from engine.events import Failed, WorkItem
from engine.models.base import DiffusionModel
from engine.params import LIMITS, GenerationParams

__all__ = ["measure_rows_per_call", "warm_up"]

logger = logging.getLogger(__name__)

CPU_ROWS: Final = 2
"""One guided picture: on a CPU larger calls gain next to nothing, and finish every picture later."""

CANDIDATE_ROWS: Final = (2, 4, 8, 16, 32)
WORTHWHILE_GAIN: Final = 1.05
"""Doubling the rows must raise the rows a second by 5 %, or the smaller call wins: its pictures finish sooner."""
TIMED_CALLS: Final = 3


@torch.inference_mode()
def measure_rows_per_call(model: DiffusionModel) -> int:
    """Find the knee of rows against time at the model's native size.

    Returns:
        Model rows; a power of two, so that noise in the timings seldom changes it from one start to the next.
    """
    if model.info.device.type == "cpu":
        return CPU_ROWS
    prompt_embeds = model.encode_prompt("")
    best_rows, best_rate = CANDIDATE_ROWS[0], 0.0
    for rows in CANDIDATE_ROWS:
        try:
            rate = rows / _seconds_per_call(model, rows, prompt_embeds)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
        logger.info("%d rows a call: %.0f rows/s", rows, rate)
        if rate < best_rate * WORTHWHILE_GAIN:
            break
        best_rows, best_rate = rows, rate
    return best_rows


def _seconds_per_call(model: DiffusionModel, rows: int, prompt_embeds: torch.Tensor) -> float:
    info = model.info
    height, width = info.native_height // LIMITS.size_multiple, info.native_width // LIMITS.size_multiple
    latents = torch.zeros(rows, info.latent_channels, height, width, device=info.device)
    timesteps = torch.full((rows,), 500.0, device=info.device)
    embeds = prompt_embeds.expand(rows, -1, -1).contiguous()
    seconds: list[float] = []
    for _ in range(1 + TIMED_CALLS):  # the first one chooses kernels
        began = time.perf_counter()
        model.denoise(latents, timesteps, embeds)
        torch.cuda.synchronize(info.device)
        seconds.append(time.perf_counter() - began)
    return median(seconds[1:])


def warm_up(engine: Engine, *, sampler: str, noise_schedule: str, num_inference_steps: int) -> list[WorkItem]:
    """Read the default request's table, and draw a picture of two steps at the native size.

    The first request then finds its table made and every kernel chosen.

    Returns:
        The last piece of work of each kind, which says best how long the next one will take.

    Raises:
        EngineError: the model cannot draw even that.
    """
    info = engine.model.info
    default = GenerationParams(
        prompt="warm-up",
        num_inference_steps=num_inference_steps,
        height=info.native_height,
        width=info.native_width,
        seed=0,
        sampler=sampler,
        noise_schedule=noise_schedule,
    )
    _ = engine.model.latent_to_rgb  # decodes a few small pictures where the model's colours are not known
    engine.prepare("warm-up", default)
    engine.add(engine.prepare("warm-up", replace(default, num_inference_steps=2)))
    work: dict[str, WorkItem] = {}
    while engine.has_work:
        for event in engine.step():
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, WorkItem):
                work[event.kind] = event
    return list(work.values())
