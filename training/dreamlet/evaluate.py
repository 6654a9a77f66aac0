"""Measures a pipeline: the judge on pictures of held-out captions, the autoencoder's PSNR, 24 prompts on one sheet.

`python -m training.dreamlet.evaluate --pipeline DIR --judge FILE --out DIR` prints a table and one JSON line.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from training.dreamlet.captions import full_caption
from training.dreamlet.config import device
from training.dreamlet.data import as_network_input
from training.dreamlet.drawing.render import render
from training.dreamlet.figures import Figures
from training.dreamlet.judge import load_judge, score, score_on_drawings
from training.dreamlet.labels import judged_labels
from training.dreamlet.networks import load_pipeline
from training.dreamlet.scenes import draw_held_out_scene
from training.dreamlet.train_autoencoder import psnr

STEPS = 28
GUIDANCE_SCALE = 7.0
CAPTIONS_SEED = 900_003

SHEET_PROMPTS = (
    "a cat on a mat, digital art",
    "a dog in a yard",
    "mountain landscape",
    "a red house in the mountains at sunset",
    "a blue boat in the sea at night",
    "a white rabbit in a forest in the snow",
    "an orange fox in a forest in fog",
    "a yellow car in a city in the rain",
    "a red rocket in space",
    "a lighthouse on a beach at dawn",
    "a castle in the mountains, watercolor",
    "a purple balloon in the desert at sunset",
    "a green robot in a city at night, cartoon",
    "a pink flower in a garden, pixel art",
    "an owl in a forest at night",
    "a snowman in a yard in the snow",
    "a teal cup in a room",
    "a kitten on a rug at dusk",
    "a red ball and a blue ball on a beach",
    "a big tree and a small house in a yard",
    "a train in the desert, 8-bit pixel art",
    "a penguin on the ocean in the rain",
    "a city at night",
    "a red mushroom in a forest",
)
"""The specification's three first."""


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


def judge_pipeline(
    pipeline: StableDiffusionPipeline, judge_file: Path, count: int, batch_size: int
) -> dict[str, float]:
    """The shares of right answers that the judge gives on generated pictures of held-out captions."""
    random = Random(CAPTIONS_SEED)  # noqa: S311 - captions, not secrets
    scenes = [draw_held_out_scene(random) for _ in range(count)]
    prompts = [full_caption(scene, random) for scene in scenes]
    images = generate(pipeline, prompts, range(count), batch_size)
    return score(load_judge(judge_file), images, torch.tensor([judged_labels(scene) for scene in scenes]))


def autoencoder_psnr(pipeline: StableDiffusionPipeline, count: int = 48) -> float:
    """Mean PSNR in dB on fresh drawings at the native size."""
    random = Random(CAPTIONS_SEED)  # noqa: S311 - pictures, not secrets
    drawings = [np.asarray(render(draw_held_out_scene(random))) for _ in range(count)]
    images = torch.from_numpy(np.stack(drawings)).permute(0, 3, 1, 2)
    return psnr(pipeline.vae, as_network_input(images).to(device()))


def seconds_a_picture(pipeline: StableDiffusionPipeline) -> float:
    """Median time of one picture at the default settings, alone."""
    generate(pipeline, SHEET_PROMPTS[:1], [0], 1)
    times = []
    for seed in range(3):
        started = time.perf_counter()
        generate(pipeline, SHEET_PROMPTS[:1], [seed], 1)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def sheet(images: torch.Tensor, columns: int = 6, gap: int = 8) -> Image.Image:
    """Pictures side by side on white.

    Args:
        images: (N, 3, H, W), bytes.
        columns: pictures in a row.
        gap: pixels between them.
    """
    count, _, height, width = images.shape
    rows = -(-count // columns)
    board = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + gap) + gap), "white")
    for index, image in enumerate(images):
        place = (gap + index % columns * (width + gap), gap + index // columns * (height + gap))
        board.paste(Image.fromarray(image.permute(1, 2, 0).numpy()), place)
    return board


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pipeline", type=Path, required=True)
    parser.add_argument("--judge", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for the sheet and the figures")
    parser.add_argument("--pictures", type=int, default=600)
    parser.add_argument("--batch-size", type=int, default=8)
    options = parser.parse_args()
    started = time.perf_counter()
    pipeline = load_pipeline(options.pipeline)
    load_s = time.perf_counter() - started
    pipeline.to(device())
    options.out.mkdir(parents=True, exist_ok=True)
    sheet(generate(pipeline, SHEET_PROMPTS, [7] * len(SHEET_PROMPTS), options.batch_size)).save(
        options.out / "sheet.png"
    )
    figures = Figures(
        pictures=options.pictures,
        generated=judge_pipeline(pipeline, options.judge, options.pictures, options.batch_size),
        drawn=score_on_drawings(load_judge(options.judge), 1024),
        psnr_db=autoencoder_psnr(pipeline),
        load_s=load_s,
        picture_s=seconds_a_picture(pipeline),
        threads=torch.get_num_threads(),
        device=device().type,
        parameters={
            name: sum(weights.numel() for weights in part.parameters())
            for name, part in (
                ("unet", pipeline.unet),
                ("text_encoder", pipeline.text_encoder),
                ("vae", pipeline.vae),
            )
        },
    )
    figures.save(options.out / "figures.json")
    sys.stdout.write(f"{figures.table()}\n{figures.line()}\n")


if __name__ == "__main__":
    main()
