#!/usr/bin/env python3
"""Lets the built-in model draw one prompt in every style of the dream form: newdreamflow/static/newdreamflow/styles/.

From the repository's root: .venv/bin/python -m scripts.style_pictures
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

import torch
from PIL import Image

from engine.engine import Engine
from engine.events import Failed, ImageDrawn
from engine.models.locate import locate
from engine.models.stable_diffusion import StableDiffusion
from engine.params import GenerationParams
from newdreamflow.dreams.styles import STYLES, picture_of, styled

REPOSITORY = Path(__file__).resolve().parents[1]
STATIC = REPOSITORY / "newdreamflow" / "static"
PROMPT, SEED = "a lighthouse on a beach", 7

TILE: Final = 256
"""Pixels of one side: the form shows about 100 in CSS, on screens with up to three to one."""
QUALITY: Final = 80


def main() -> int:
    """Draw and write them all; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=STATIC, help="folder of static files (default: %(default)s)")
    parser.add_argument("--prompt", default=PROMPT, help="what every style draws (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="of every picture (default: %(default)s)")
    arguments = parser.parse_args()
    for style, picture in drawn(arguments.prompt, arguments.seed).items():
        path = arguments.output / picture_of(style)
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.resize((TILE, TILE), Image.Resampling.LANCZOS).save(path, quality=QUALITY, method=6)
        print(f"wrote {path} ({path.stat().st_size} bytes)")
    return 0


def drawn(prompt: str, seed: int) -> dict[str, Image.Image]:
    """The prompt's picture by key of the style; the empty key is the one without a style."""
    model = StableDiffusion.load(locate(str(REPOSITORY / "models" / "dreamlet")), torch.device("cpu"), torch.float32)
    engine = Engine(model, rows_per_call=8)
    for style in ("", *STYLES):
        params = GenerationParams(
            prompt=styled(prompt, style),
            seed=seed,
            height=model.info.native_height,
            width=model.info.native_width,
        )
        engine.add(engine.prepare(style, params))
    pictures = {}
    while engine.has_work:
        for event in engine.step():
            if isinstance(event, ImageDrawn):
                pictures[event.request_id] = Image.fromarray(event.pixels)
            elif isinstance(event, Failed):
                raise event.error
    return pictures


if __name__ == "__main__":
    sys.exit(main())
