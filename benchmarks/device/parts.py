"""What each part of a picture takes on a device: the network by rows, the update, the decode, the file."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from benchmarks.common.pairs import Summary
from benchmarks.device.clock import Marks, seconds_per_call
from engine.batch import Batch
from engine.engine import Engine
from engine.models.base import DiffusionModel
from engine.params import GenerationParams
from engine.prompts.encoder import PromptEncoder
from engine.prompts.prompt import Prompt
from engine.samplers import SAMPLERS
from server.worker.image_files import encode_image

__all__ = ["RowsPoint", "StepParts", "decode_seconds", "file_seconds", "rows_curve", "step_parts"]

NUM_SAMPLERS = 8
"""Different ones in the batch whose parts are measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsPoint:
    """One point of the curve of rows against time."""

    rows: int
    call_s: Summary
    rows_per_s: float
    peak_bytes: int | None
    """Most memory that the call held beyond the weights; None where it cannot be read."""


@torch.inference_mode()
def rows_curve(model: DiffusionModel, candidates: Sequence[int], *, calls: int) -> list[RowsPoint]:
    """Time the network at each number of rows, until one does not fit into memory."""
    device = model.info.device
    points: list[RowsPoint] = []
    for rows in candidates:
        latents = torch.randn(rows, *_latent_shape(model), device=device)
        timesteps = torch.linspace(999.0, 1.0, rows, device=device)
        text = model.encode_prompt(Prompt("a cat"))
        told = model.embed_time(timesteps, text)
        prompts = text.attended.expand(rows, -1, -1).contiguous()
        before = _start_watching_memory(device)
        try:
            call_s = seconds_per_call(
                device,
                lambda given=(latents, told, prompts): model.denoise(*given),  # type: ignore[misc] # mypy infers no lambda with a default
                calls=calls,
            )
        except torch.OutOfMemoryError:
            break
        points.append(
            RowsPoint(
                rows=rows,
                call_s=call_s,
                rows_per_s=rows / call_s.median,
                peak_bytes=torch.cuda.max_memory_allocated(device) - before if device.type == "cuda" else None,
            )
        )
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return points


@dataclass(frozen=True, slots=True, kw_only=True)
class StepParts:
    """Where the seconds of one step go; medians."""

    num_images: int
    rows: int
    gather_s: float
    unet_s: float
    scatter_s: float
    """Guidance, the fused update, and everyone's slots back."""
    guidance_s: float
    """Of `scatter_s`, measured by itself."""

    @property
    def update_share(self) -> float:
        """Of the network's time: what advancing the batch takes."""
        return self.scatter_s / self.unet_s

    @property
    def engine_share(self) -> float:
        """Of the whole step: what is not the network."""
        return (self.gather_s + self.scatter_s) / (self.gather_s + self.unet_s + self.scatter_s)


@torch.inference_mode()
def step_parts(engine: Engine, *, num_images: int, rows: int, calls: int) -> StepParts:
    """Take steps with guided pictures of eight samplers, and time the parts of each step.

    Args:
        engine: its model is used, its queue is not.
        num_images: that share the batch.
        rows: of the call; at least two a picture.
        calls: steps to time.
    """
    model = engine.model
    samplers = list(SAMPLERS)[:NUM_SAMPLERS]
    prompts = PromptEncoder(model)
    pictures = [
        picture
        for index in range(num_images)
        for picture in engine.prepare(
            str(index),
            GenerationParams(
                prompt="a cat",
                seed=index,
                num_inference_steps=calls + 2,
                height=model.info.native_height,
                width=model.info.native_width,
                sampler=samplers[index % len(samplers)],
                noise_schedule="default",
            ),
        ).pictures
    ]
    for leg in (picture.leg for picture in pictures):
        leg.conditionings = tuple(prompts.encode(prompt, 1, leg.timesteps) for prompt in leg.prompts.prompts)
    batch = Batch.of(pictures, rows)

    marks = Marks(model.info.device)
    for number in range(calls + 1):
        if number == 1:  # the first step chooses kernels
            marks = Marks(model.info.device)
            marks.mark()
        given = batch.gather()
        marks.mark()
        prediction = model.denoise(*given)
        marks.mark()
        batch.scatter(prediction)
        marks.mark()
    seconds = marks.seconds()
    gather_s, unet_s, scatter_s = (statistics.median(seconds[part::3]) for part in range(3))
    guidance_s = seconds_per_call(model.info.device, lambda: batch.guide(prediction), calls=calls).median
    return StepParts(
        num_images=num_images,
        rows=batch.num_rows,
        gather_s=gather_s,
        unet_s=unet_s,
        scatter_s=scatter_s,
        guidance_s=guidance_s,
    )


@torch.inference_mode()
def decode_seconds(model: DiffusionModel, *, calls: int) -> Summary:
    """Time the autoencoder at the native size, the way to the host included: that is what the batch waits for."""
    latents = torch.randn(*_latent_shape(model), device=model.info.device)
    return seconds_per_call(model.info.device, lambda: model.decode(latents).cpu(), calls=calls)


@torch.inference_mode()
def file_seconds(model: DiffusionModel, *, calls: int) -> Summary:
    """Time the writing of a picture at the native size as PNG."""
    pixels = model.decode(torch.randn(*_latent_shape(model), device=model.info.device)).cpu().numpy()
    seconds: list[float] = []
    for _ in range(calls):
        began = time.perf_counter()
        encode_image(pixels, "png")
        seconds.append(time.perf_counter() - began)
    return Summary.of(seconds)


def _latent_shape(model: DiffusionModel) -> tuple[int, int, int]:
    info = model.info
    return info.latent_shape(info.native_height, info.native_width)


def _start_watching_memory(device: torch.device) -> int:
    """Bytes that are held now; the peak is counted from here."""
    if device.type != "cuda":
        return 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)
