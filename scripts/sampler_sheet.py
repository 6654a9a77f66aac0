#!/usr/bin/env python3
"""Lets a running server draw one prompt with every sampler at several step counts, and puts the pictures on one sheet.

./run.sh &
.venv/bin/python scripts/sampler_sheet.py --output docs/images/samplers.jpg
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

TILE = 128
"""Pixels of one picture on the sheet."""
LABEL_WIDTH = 200
MARGIN = 10
BLOCKS = 2
"""Samplers stand in so many columns."""
TIMEOUT_S = 600


def main() -> int:
    """Draw the sheet; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the server (default: %(default)s)")
    parser.add_argument("--prompt", default="a cat on a mat, digital art")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, nargs="+", default=[6, 12, 28])
    parser.add_argument("--output", type=Path, required=True, help="where the sheet goes; JPEG or PNG by its ending")
    options = parser.parse_args()
    try:
        samplers = [sampler["name"] for sampler in json.loads(_ask(f"{options.url}/v1/samplers"))["samplers"]]
        pictures = {
            (sampler, steps): _draw(options.url, options.prompt, options.seed, sampler, steps)
            for sampler in samplers
            for steps in options.steps
        }
    except urllib.error.URLError as error:
        print(f"error: {options.url}: {error}", file=sys.stderr)
        return 1
    _sheet(samplers, options.steps, pictures, f"{options.prompt}, seed {options.seed}").save(options.output, quality=88)
    print(f"{len(pictures)} pictures: {options.output}")
    return 0


def _draw(url: str, prompt: str, seed: int, sampler: str, steps: int) -> Image.Image:
    print(f"{sampler}, {steps} steps")
    body = {"prompt": prompt, "seed": seed, "sampler": sampler, "num_inference_steps": steps}
    data = _ask(f"{url}/generate", json.dumps(body).encode())
    return Image.open(io.BytesIO(data), formats=["PNG"]).convert("RGB")


def _ask(url: str, body: bytes | None = None) -> bytes:
    # The address comes from whoever runs this command.
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310 - as above
        data: bytes = answer.read()
    return data


def _sheet(
    samplers: list[str], steps: list[int], pictures: dict[tuple[str, int], Image.Image], title: str
) -> Image.Image:
    """Samplers down, steps across, in two blocks side by side."""
    rows = -(-len(samplers) // BLOCKS)
    block_width = LABEL_WIDTH + len(steps) * (TILE + MARGIN) + MARGIN
    head = 70
    sheet = Image.new("RGB", (BLOCKS * block_width, head + rows * (TILE + MARGIN)), "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(17)
    pen.text((MARGIN, MARGIN), title, fill="black", font=font)
    for index, sampler in enumerate(samplers):
        left, top = index // rows * block_width, head + index % rows * (TILE + MARGIN)
        pen.text((left + MARGIN, top + TILE // 2 - 10), sampler, fill="black", font=font)
        for column, count in enumerate(steps):
            x = left + LABEL_WIDTH + column * (TILE + MARGIN)
            if top == head:
                pen.text((x, head - 26), f"{count} steps", fill="black", font=font)
            sheet.paste(pictures[sampler, count].resize((TILE, TILE), Image.Resampling.LANCZOS), (x, top))
    return sheet


if __name__ == "__main__":
    sys.exit(main())
