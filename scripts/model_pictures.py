#!/usr/bin/env python3
"""Lets a running server draw what the README and the model's card show: docs/images/{first_picture,dreamlet}.png.

./run.sh &
.venv/bin/python scripts/model_pictures.py
"""

from __future__ import annotations

import argparse
import io
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from semantic_bit_client import Client, SemanticBitError

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"

FIRST_PROMPT, FIRST_SEED = "a cat on a mat, digital art", 1

SHEET_SEED = 7
SHEET_PROMPTS = (
    "a cat on a mat, digital art",
    "a dog in a yard",
    "mountain landscape",
    "an orange fox in the snow",
    "a penguin in the snow",
    "a blue owl in a forest at night",
    "a lighthouse on a beach at sunset",
    "a red rocket in space",
    "a snowman in a yard in the snow",
    "a white rabbit in a forest in the snow",
    "a blue boat in the sea at night",
    "a yellow car in a city in the rain",
    "a red house in the mountains at sunset",
    "a castle in the mountains, watercolor",
    "a purple balloon in the desert at sunset",
    "a green robot in a city at night, cartoon",
    "a pink flower in a garden, pixel art",
    "a teal cup in a room",
    "a kitten on a rug at dusk",
    "a red ball and a blue ball on a beach",
    "a big tree and a small house in a yard",
    "a train in the desert, 8-bit pixel art",
    "a red mushroom in a forest",
    "a city at night",
)
"""None left out because it came out badly. The specification's three first."""

COLUMNS = 6
TILE = 160
"""Pixels of one picture on the sheet."""
CAPTION_HEIGHT = 34
MARGIN = 6


def main() -> int:
    """Draw both; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the server (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=IMAGES, help="folder (default: docs/images)")
    options = parser.parse_args()
    try:
        with Client(options.url) as client:
            client.generate(FIRST_PROMPT, seed=FIRST_SEED).save(options.output / "first_picture.png")
            tiles = [Image.open(io.BytesIO(client.generate(prompt, seed=SHEET_SEED).bytes)) for prompt in SHEET_PROMPTS]
    except SemanticBitError as error:
        print(f"error: {options.url}: {error}", file=sys.stderr)
        return 1
    sheet(tiles).quantize(256).save(options.output / "dreamlet.png", optimize=True)
    return 0


def sheet(tiles: Sequence[Image.Image]) -> Image.Image:
    """The pictures in rows, each with its prompt below it."""
    across, down = TILE + MARGIN, TILE + CAPTION_HEIGHT + MARGIN
    canvas = Image.new("RGB", (COLUMNS * across + MARGIN, -(-len(tiles) // COLUMNS) * down + MARGIN), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(11)
    for index, (tile, prompt) in enumerate(zip(tiles, SHEET_PROMPTS, strict=True)):
        left, top = MARGIN + index % COLUMNS * across, MARGIN + index // COLUMNS * down
        canvas.paste(tile.convert("RGB").resize((TILE, TILE), Image.Resampling.LANCZOS), (left, top))
        pen.multiline_text((left, top + TILE + 3), textwrap.fill(prompt, 28), fill="black", font=font, spacing=2)
    return canvas


if __name__ == "__main__":
    sys.exit(main())
