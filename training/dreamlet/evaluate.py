"""Evaluates a pipeline: judge, blind test, the autoencoder's PSNR, speed, loss, a sheet of 24 prompts.

`python -m training.dreamlet.evaluate --pipeline DIR --judge FILE --out DIR` prints tables and one JSON line.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import TypeAlias

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from training.dreamlet.captions import full_caption
from training.dreamlet.figures import Figures
from training.dreamlet.held_out_loss import HeldOut
from training.dreamlet.judge import Judge, answers, load_judge, shares_right
from training.dreamlet.labels import judged_labels
from training.dreamlet.machine import device
from training.dreamlet.networks import load_pipeline
from training.dreamlet.scenes import Scene, draw_held_out_scene
from training.dreamlet.sheets import SHEET_PROMPTS, pair_riddles, sheet, single_riddles, write_riddles
from training.dreamlet.train_autoencoder import held_out_pictures, psnr
from training.dreamlet.train_judge import score_on_drawings

STEPS = 28
GUIDANCE_SCALE = 7.0
CAPTIONS_SEED = 900_003
RIDDLES = 48
SHEET_SEED = 7

Draw: TypeAlias = Callable[[Sequence[str], Sequence[int]], torch.Tensor]
"""Prompts and seeds to pictures, (N, 3, H, W), bytes."""


def generate(
    pipeline: StableDiffusionPipeline, prompts: Sequence[str], seeds: Sequence[int], batch_size: int
) -> torch.Tensor:
    """Draw with the default settings.

    Args:
        pipeline: on its device.
        prompts: one a picture.
        seeds: one a picture, each for a generator on the CPU.
        batch_size: pictures drawn together.

    Returns:
        (N, 3, H, W), bytes, on the CPU.
    """
    parts = []
    for start in range(0, len(prompts), batch_size):
        chosen = slice(start, start + batch_size)
        images = pipeline(
            prompt=list(prompts[chosen]),
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE_SCALE,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds[chosen]],
            output_type="np",
        ).images
        parts.append(torch.from_numpy((np.asarray(images) * 255).round().astype(np.uint8)).permute(0, 3, 1, 2))
    return torch.cat(parts)


def judged(judge: Judge, images: torch.Tensor, scenes: Sequence[Scene]) -> dict[str, float]:
    """The shares of pictures on which the judge sees what their scenes say."""
    return shares_right(answers(judge, images), torch.tensor([judged_labels(scene) for scene in scenes]))


def judge_captions(draw: Draw, judge: Judge, count: int) -> dict[str, float]:
    """The shares of right answers that the judge gives on generated pictures of held-out captions."""
    random = Random(CAPTIONS_SEED)  # noqa: S311 - captions, not secrets
    scenes = [draw_held_out_scene(random) for _ in range(count)]
    prompts = [full_caption(scene, random) for scene in scenes]
    return judged(judge, draw(prompts, range(count)), scenes)


def draw_sheets(draw: Draw, judge: Judge, out: Path, riddles: int = RIDDLES) -> dict[str, float]:
    """Write the sheet of prompts and both sheets of riddles with their keys.

    Returns:
        What the judge says of the pictures with two subjects; `pair`: both right.
    """
    sheet(draw(SHEET_PROMPTS, [SHEET_SEED] * len(SHEET_PROMPTS))).save(out / "sheet.png")
    scenes, prompts_of_one = single_riddles(riddles)
    seeds = range(len(scenes))
    write_riddles(out, "stranger", draw(prompts_of_one, seeds), prompts_of_one)
    pairs, prompts_of_two = pair_riddles(riddles)
    images = draw(prompts_of_two, seeds)
    write_riddles(out, "pairs", images, prompts_of_two)
    return judged(judge, images, pairs)


def seconds_a_picture(pipeline: StableDiffusionPipeline) -> float:
    """Median time of one picture at the default settings, alone."""
    generate(pipeline, SHEET_PROMPTS[:1], [0], 1)
    times = []
    for seed in range(3):
        started = time.perf_counter()
        generate(pipeline, SHEET_PROMPTS[:1], [seed], 1)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def evaluate(folder: Path, judge_file: Path, out: Path, pictures: int, batch_size: int) -> Figures:
    """Measure everything; leaves the sheets in `out`."""
    started = time.perf_counter()
    pipeline = load_pipeline(folder)
    load_s = time.perf_counter() - started
    pipeline.to(device())
    judge = load_judge(judge_file)
    out.mkdir(parents=True, exist_ok=True)

    def draw(prompts: Sequence[str], seeds: Sequence[int]) -> torch.Tensor:
        return generate(pipeline, prompts, seeds, batch_size)

    pair = draw_sheets(draw, judge, out)["pair"]
    parts = {"unet": pipeline.unet, "text_encoder": pipeline.text_encoder, "vae": pipeline.vae}
    return Figures(
        pictures=pictures,
        generated={**judge_captions(draw, judge, pictures), "pair": pair},
        drawn=score_on_drawings(judge, 1024),
        psnr_db=psnr(pipeline.vae, held_out_pictures(48)),
        held_out_loss=HeldOut(pipeline.vae, pipeline.tokenizer, pipeline.text_encoder).loss(pipeline.unet),
        load_s=load_s,
        picture_s=seconds_a_picture(pipeline),
        threads=torch.get_num_threads(),
        device=device().type,
        parameters={name: sum(weights.numel() for weights in part.parameters()) for name, part in parts.items()},
    )


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pipeline", type=Path, required=True)
    parser.add_argument("--judge", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for the sheets and the figures")
    parser.add_argument("--pictures", type=int, default=600)
    parser.add_argument("--batch-size", type=int, default=12)
    options = parser.parse_args()
    figures = evaluate(options.pipeline, options.judge, options.out, options.pictures, options.batch_size)
    figures.save(options.out / "figures.json")
    sys.stdout.write(f"{figures.table()}\n{figures.line()}\n")


if __name__ == "__main__":
    main()
