"""Evaluates a pipeline: judge, blind tests, the autoencoder's PSNR, speed, loss, sheets of fixed prompts and settings.

`python -m training.dreamlet.evaluate --pipeline DIR --judge FILE --out DIR` prints tables and one JSON line.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

import torch
from diffusers import StableDiffusionPipeline

from training.dreamlet.captions import full_caption
from training.dreamlet.figures import Figures
from training.dreamlet.generate import DEFAULT, Draw, Settings, generate
from training.dreamlet.held_out_loss import HeldOut
from training.dreamlet.judge import Judge, answers, load_judge, shares_right
from training.dreamlet.labels import judged_labels
from training.dreamlet.machine import begin, device
from training.dreamlet.networks import load_pipeline
from training.dreamlet.scenes import Scene, draw_held_out_scene
from training.dreamlet.sheets import (
    FIRST_PROMPTS,
    SEEDS,
    SETTINGS,
    SETTINGS_PROMPTS,
    SHEET_PROMPTS,
    SHEET_SEED,
    pair_riddles,
    sheet,
    single_riddles,
    style_riddles,
    write_riddles,
)
from training.dreamlet.train_autoencoder import held_out_pictures, psnr
from training.dreamlet.train_judge import score_on_drawings

CAPTIONS_SEED = 900_003
RIDDLES = 48


def judged(judge: Judge, images: torch.Tensor, scenes: Sequence[Scene]) -> dict[str, float]:
    """The shares of pictures on which the judge sees what their scenes say."""
    return shares_right(answers(judge, images), torch.tensor([judged_labels(scene) for scene in scenes]))


def judge_captions(draw: Draw, judge: Judge, count: int) -> dict[str, float]:
    """The shares of right answers that the judge gives on generated pictures of held-out captions."""
    random = Random(CAPTIONS_SEED)  # noqa: S311 - captions, not secrets
    scenes = [draw_held_out_scene(random) for _ in range(count)]
    prompts = [full_caption(scene, random) for scene in scenes]
    return judged(judge, draw(prompts, range(count), DEFAULT), scenes)


def draw_sheets(draw: Draw, judge: Judge, out: Path, riddles: int = RIDDLES) -> dict[str, float]:
    """Write the sheets of fixed prompts and settings, and the sheets of riddles with their keys.

    Returns:
        What the judge says of the pictures with two subjects; `pair`: both right.
    """
    sheet(draw(SHEET_PROMPTS, [SHEET_SEED] * len(SHEET_PROMPTS), DEFAULT)).save(out / "sheet.png")
    prompts = [prompt for prompt in FIRST_PROMPTS for _ in range(SEEDS)]
    sheet(draw(prompts, [*range(SEEDS)] * len(FIRST_PROMPTS), DEFAULT), columns=SEEDS).save(out / "seeds.png")
    for name, settings in SETTINGS.items():
        pictures = draw(SETTINGS_PROMPTS, [SHEET_SEED] * len(SETTINGS_PROMPTS), settings)
        sheet(pictures, columns=len(SETTINGS_PROMPTS)).save(out / f"settings_{name}.png")
    for name, (scenes, prompts) in {
        "stranger": single_riddles(riddles),
        "styles": style_riddles(riddles),
        "pairs": pair_riddles(riddles),
    }.items():
        images = draw(prompts, range(len(scenes)), DEFAULT)
        write_riddles(out, name, images, prompts)
    return judged(judge, images, scenes)


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

    def draw(prompts: Sequence[str], seeds: Sequence[int], settings: Settings) -> torch.Tensor:
        return generate(pipeline, prompts, seeds, batch_size, settings)

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
    begin()
    figures = evaluate(options.pipeline, options.judge, options.out, options.pictures, options.batch_size)
    figures.save(options.out / "figures.json")
    sys.stdout.write(f"{figures.table()}\n{figures.line()}\n")


if __name__ == "__main__":
    main()
