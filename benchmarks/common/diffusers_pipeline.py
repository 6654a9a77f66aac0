"""diffusers' own pipeline, which we are compared with. Imports torch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import diffusers
import numpy as np
import torch

from benchmarks.common.drawn import Drawn, Pixels
from engine.params import GenerationParams

__all__ = ["DiffusersPipeline", "Scheduler"]

Scheduler = Literal["DPM++ 2M Karras", "PNDM"]


class DiffusersPipeline:
    """`StableDiffusionPipeline` as its users write it, without the safety checker, which we do not have either."""

    def __init__(self, folder: Path, *, device: str = "cpu", dtype: str = "float32") -> None:
        diffusers.utils.logging.disable_progress_bar()
        # Published models hold half precision as a second set of files; a model with no other needs it by name.
        has_half = dtype == "float16" and any(folder.glob("unet/*.fp16.safetensors"))
        self._pipeline: Any = diffusers.StableDiffusionPipeline.from_pretrained(
            str(folder),
            dtype=getattr(torch, dtype),
            variant="fp16" if has_half else None,
            local_files_only=True,
            use_safetensors=True,
            safety_checker=None,
            requires_safety_checker=False,
        ).to(device)
        self._pipeline.set_progress_bar_config(disable=True)
        self._scheduler_config = self._pipeline.scheduler.config

    def use(self, scheduler: Scheduler) -> None:
        """Draw with this scheduler from now on."""
        if scheduler == "PNDM":
            self._pipeline.scheduler = diffusers.PNDMScheduler.from_config(self._scheduler_config)
        else:
            self._pipeline.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(
                self._scheduler_config, use_karras_sigmas=True
            )

    def draw_in_turn(self, requests: Sequence[GenerationParams]) -> Drawn:
        """Draw with one call a picture, one after the other."""
        began = time.perf_counter()
        finished_s: list[float] = []
        pictures: list[Pixels] = []
        for params in requests:
            pictures += self._call([params])
            finished_s.append(time.perf_counter() - began)
        return Drawn(finished_s, pictures)

    def draw_as_list(self, requests: Sequence[GenerationParams]) -> Drawn:
        """Draw with one call for all: each its own prompt and generator; settings and size are the first one's."""
        began = time.perf_counter()
        pictures = self._call(requests)
        return Drawn([time.perf_counter() - began] * len(requests), pictures)

    def _call(self, requests: Sequence[GenerationParams]) -> list[Pixels]:
        first = requests[0]
        images = self._pipeline(
            [params.prompt for params in requests],
            negative_prompt=[params.negative_prompt for params in requests],
            num_inference_steps=first.num_inference_steps,
            guidance_scale=first.guidance_scale,
            height=first.height,
            width=first.width,
            generator=[torch.Generator().manual_seed(params.seed) for params in requests],
        ).images
        return [np.asarray(image) for image in images]
