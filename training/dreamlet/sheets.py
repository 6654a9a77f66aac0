"""Contact sheets of generated pictures: fixed prompts, seeds and settings, and blind tests.

A riddle sheet shows numbered pictures without their prompts; the key beside it, a file of its own, holds the answers.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from random import Random

import torch
from PIL import Image, ImageDraw

from training.dreamlet.captions import full_caption, pair_caption
from training.dreamlet.generate import Settings
from training.dreamlet.scenes import STYLE_NAMES, SUBJECT_NAMES, Said, Scene, draw_held_out_scene, draw_scene
from training.dreamlet.vocabulary import STYLE_WORDS

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
SHEET_SEED = 7

FIRST_PROMPTS, SEEDS = SHEET_PROMPTS[:3], 8
"""What must come out well with every seed."""

SETTINGS_PROMPTS = (
    "a cat on a mat, digital art",
    "a dog in a yard",
    "a white rabbit in a forest in the snow",
    "a lighthouse on a beach",
    "a red mushroom in a forest",
    "a big tree and a small house in a yard",
)
SETTINGS = {
    "default": Settings(),
    "euler": Settings(sampler="Euler"),
    "ddim": Settings(sampler="DDIM"),
    "12_steps": Settings(steps=12),
    "guidance_4": Settings(guidance_scale=4.0),
    "guidance_10": Settings(guidance_scale=10.0),
    "192x256": Settings(size=(192, 256)),
    "320x256": Settings(size=(320, 256)),
    "no_snow": Settings(negative_prompt="snow"),
}
"""A row of the same prompts with each."""

STRANGER_SEED, PAIRS_SEED, STYLES_SEED = 900_005, 900_006, 900_007
GAP, LABEL = 8, 22
"""Pixels between pictures, and for a number below each."""


def sheet(images: torch.Tensor, columns: int = 6, *, is_numbered: bool = False) -> Image.Image:
    """Pictures side by side on white.

    Args:
        images: (N, 3, H, W), bytes.
        columns: pictures in a row.
        is_numbered: whether each has its number below, from 1.
    """
    count, _, height, width = images.shape
    below = LABEL if is_numbered else 0
    rows = -(-count // columns)
    board = Image.new("RGB", (columns * (width + GAP) + GAP, rows * (height + below + GAP) + GAP), "white")
    pen = ImageDraw.Draw(board)
    for index, image in enumerate(images):
        x = GAP + index % columns * (width + GAP)
        y = GAP + index // columns * (height + below + GAP)
        board.paste(Image.fromarray(image.permute(1, 2, 0).numpy()), (x, y))
        if is_numbered:
            pen.text((x + 4, y + height + 3), str(index + 1), fill="black", font_size=18)
    return board


def single_riddles(count: int) -> tuple[list[Scene], list[str]]:
    """Held-out scenes of one subject, every kind about equally often, and a prompt for each."""
    random = Random(STRANGER_SEED)  # noqa: S311 - captions, not secrets
    order = random.sample(SUBJECT_NAMES, k=len(SUBJECT_NAMES))
    scenes = [_held_out_scene_of(kind, random) for kind in islice(cycle(order), count)]
    return scenes, [full_caption(scene, random) for scene in scenes]


def pair_riddles(count: int) -> tuple[list[Scene], list[str]]:
    """Scenes of two subjects of different kinds, and a prompt for each: "a red cat and a blue ball on a beach"."""
    random = Random(PAIRS_SEED)  # noqa: S311 - captions, not secrets
    said = Said(subjects=2, colour=True, place=True, time=False, style=False)
    scenes: list[Scene] = []
    while len(scenes) < count:
        scene = draw_scene(random, said)
        left, right = scene.subjects
        if left.kind != right.kind and scene.time == "day":
            scenes.append(scene)
    return scenes, [pair_caption(scene, random) for scene in scenes]


def style_riddles(count: int) -> tuple[list[Scene], list[str]]:
    """Held-out scenes of one subject by day, every style equally often, in mixed order, and a prompt for each."""
    random = Random(STYLES_SEED)  # noqa: S311 - captions, not secrets
    styles = random.sample([*islice(cycle(STYLE_NAMES), count)], k=count)
    scenes = [replace(draw_held_out_scene(random), time="day", style=style) for style in styles]
    words = [STYLE_WORDS[style][0] for style in styles]
    return scenes, [f"{full_caption(scene, random)}, {word}" for scene, word in zip(scenes, words, strict=True)]


def write_riddles(folder: Path, name: str, images: torch.Tensor, prompts: Sequence[str]) -> None:
    """Write `NAME.png`, the numbered pictures, and `NAME_key.txt`, the prompt of each number."""
    sheet(images, columns=8, is_numbered=True).save(folder / f"{name}.png")
    lines = [f"{number}. {prompt}" for number, prompt in enumerate(prompts, start=1)]
    (folder / f"{name}_key.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _held_out_scene_of(kind: str, random: Random) -> Scene:
    while True:
        scene = draw_held_out_scene(random)
        if scene.subjects[0].kind == kind:
            return scene
