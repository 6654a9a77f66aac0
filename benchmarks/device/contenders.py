"""Who draws the same requests on the same weights: our engine in several settings, and diffusers' own pipeline."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks.common.diffusers_pipeline import DiffusersPipeline
from benchmarks.common.drawn import Drawn, Pixels
from engine.engine import Engine
from engine.events import Failed, ImageDrawn
from engine.params import GenerationParams

__all__ = ["ChannelsLastPipeline", "Contender", "draw", "fitting", "make_requests"]

Contender = Callable[[Sequence[GenerationParams]], Drawn]


class ChannelsLastPipeline(DiffusersPipeline):
    """Diffusers' pipeline as its own optimization guide has it: half precision, convolutions in channels_last."""

    def __init__(self, folder: Path, *, device: str, dtype: str) -> None:
        super().__init__(folder, device=device, dtype=dtype)
        self._pipeline.unet.to(memory_format=torch.channels_last)
        self._pipeline.vae.to(memory_format=torch.channels_last)
        self.use("DPM++ 2M Karras")


def draw(engine: Engine, requests: Sequence[GenerationParams]) -> Drawn:
    """Let an engine draw requests of one picture each that come all at once."""
    finished_s = [0.0] * len(requests)
    pictures: dict[int, Pixels] = {}
    began = time.perf_counter()
    for index, request in enumerate(requests):
        engine.add(engine.prepare(str(index), request))
    while engine.has_work:
        for event in engine.step():
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, ImageDrawn):
                finished_s[int(event.request_id)] = time.perf_counter() - began
                pictures[int(event.request_id)] = event.pixels
    return Drawn(finished_s, [pictures[index] for index in range(len(requests))])


def fitting(contender: Contender) -> Contender:
    """The same contender; one that has once run out of memory draws nothing any more, which reads as no pictures."""
    has_failed = False

    def drawn(requests: Sequence[GenerationParams]) -> Drawn:
        nonlocal has_failed
        if not has_failed:
            try:
                return contender(requests)
            except torch.OutOfMemoryError:
                has_failed = True
            torch.cuda.empty_cache()  # out of the handler, where the error still holds on to the call's tensors
        return Drawn([], [])

    return drawn


def make_requests(count: int, *, num_inference_steps: int, height: int, width: int) -> list[GenerationParams]:
    """Requests that differ in seed and prompt, by the default sampler."""
    return [
        GenerationParams(
            prompt=f"a cat on a mat, number {number}",
            negative_prompt="blurry",
            seed=number,
            num_inference_steps=num_inference_steps,
            height=height,
            width=width,
        )
        for number in range(count)
    ]
