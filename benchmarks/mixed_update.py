"""What the mixed update costs: one step of 16 pictures of 8 samplers at 64x64 latents, against one full-size UNet call.

The UNet is Stable Diffusion 1.5's with random weights, in float32 on this machine's CPU; timings do not depend on the
values. Goal: the update takes at most 2 % of the call.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from benchmarks.common.report import Report
from engine.batch import Batch
from engine.engine import Engine
from engine.models.fake import FakeModel
from engine.models.options import Options
from engine.models.unet_plan import UNetPlan
from engine.networks.unet import UNet
from engine.params import GenerationParams
from engine.picture import Picture

NUM_IMAGES = 16
MIXED = ("DPMSolver++", "DPM++ 3M SDE", "Euler a", "Heun", "PNDM", "UniPC", "DDIM", "SA-Solver")
GOAL = 0.02


def main() -> None:
    """Measure in turn, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mixed_update", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="rounds; medians are reported (default: %(default)s)")
    options = parser.parse_args()
    report = Report("mixed_update", {"pictures": NUM_IMAGES, "samplers": len(MIXED), "repeats": options.repeats})
    unet = _full_size_unet()
    prediction = torch.randn(2 * NUM_IMAGES, 4, 64, 64)
    update_s, call_s = [], []
    with torch.inference_mode():
        told = unet.pack_time(torch.full((2,), 500.0)), unet.pack_prompt(torch.randn(2, 77, 768))
        pictures = _pictures()
        for _ in range(options.repeats):
            update_s.append(median(_seconds(lambda: _update(pictures, prediction)) for _ in range(10)))
            call_s.append(_seconds(lambda: unet(torch.randn(2, 4, 64, 64), *told)))
    update, call = median(update_s), median(call_s)
    report.table(
        "One step at 64x64 latents",
        ["work", "ms"],
        [
            [f"guidance and update of {NUM_IMAGES} pictures, {len(MIXED)} samplers", f"{update * 1e3:.2f}"],
            ["full-size UNet call, 2 rows", f"{call * 1e3:.1f}"],
        ],
    )
    report.goal("update / UNet call", update / call, GOAL)
    report.finish({"update_s": update, "unet_call_2_rows_s": call, "share": update / call})


def _full_size_unet() -> UNet:
    config = {
        "block_out_channels": (320, 640, 1280, 1280),
        "layers_per_block": 2,
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
    }
    unet = UNet(UNetPlan.read(Options(Path("config.json"), config)))
    unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's types do not have it
    return unet.eval()


def _pictures() -> list[Picture]:
    engine = Engine(FakeModel())
    pictures: list[Picture] = []
    for index in range(NUM_IMAGES):
        params = GenerationParams(prompt="x", seed=index, sampler=MIXED[index % len(MIXED)], noise_schedule="default")
        pictures += engine.prepare(str(index), params).pictures
    return pictures


def _update(pictures: list[Picture], prediction: torch.Tensor) -> None:
    """One whole scatter: guidance, noise, the fused update; from the tenth call of each picture."""
    for leg in (picture.leg for picture in pictures):
        leg.call_index, leg.noise_index = 10, 10 * any(leg.draws)
    Batch.of(pictures, prediction.shape[0]).scatter(prediction)


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
