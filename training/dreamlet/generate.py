"""Draws with a pipeline as diffusers does it, under given settings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, StableDiffusionPipeline

SAMPLERS = {
    "DPM++ 2M Karras": DPMSolverMultistepScheduler,
    "Euler": EulerDiscreteScheduler,
    "DDIM": DDIMScheduler,
}
"""By the name that a sheet shows; the first is the one that the model is meant for."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a picture is drawn, prompt and seed apart."""

    sampler: str = "DPM++ 2M Karras"
    """One of SAMPLERS."""
    steps: int = 28
    guidance_scale: float = 7.0
    negative_prompt: str = ""
    size: tuple[int, int] | None = None
    """Width and height in pixels; None: the model's own."""


DEFAULT = Settings()

Draw: TypeAlias = Callable[[Sequence[str], Sequence[int], Settings], torch.Tensor]
"""Prompts, seeds and settings to pictures, (N, 3, H, W), bytes."""


def generate(
    pipeline: StableDiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    batch_size: int,
    settings: Settings = DEFAULT,
) -> torch.Tensor:
    """Draw.

    Args:
        pipeline: on its device.
        prompts: one a picture.
        seeds: one a picture, each for a generator on the CPU.
        batch_size: pictures drawn together.
        settings: the same for all.

    Returns:
        (N, 3, H, W), bytes, on the CPU.
    """
    # DDIM would cut the latents to [-1, 1] by default, as if they were pixels.
    pipeline.scheduler = SAMPLERS[settings.sampler].from_config(pipeline.scheduler.config, clip_sample=False)
    width, height = settings.size or (None, None)
    parts = []
    for start in range(0, len(prompts), batch_size):
        chosen = slice(start, start + batch_size)
        images = pipeline(
            prompt=list(prompts[chosen]),
            negative_prompt=[settings.negative_prompt] * len(prompts[chosen]),
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance_scale,
            width=width,
            height=height,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds[chosen]],
            output_type="np",
        ).images
        parts.append(torch.from_numpy((np.asarray(images) * 255).round().astype(np.uint8)).permute(0, 3, 1, 2))
    return torch.cat(parts)
