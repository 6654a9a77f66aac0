"""What stands in the part that is drawn anew before it is: colours of the surroundings (`fill`), a larger canvas."""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image, ImageFilter

from engine.picture_params import Expand
from engine.pictures.mask import MARKED, Box, blurred
from engine.pictures.resize import Pixels

__all__ = ["expanded", "filled"]

_PYRAMID: Final = ((256, 1), (64, 1), (16, 2), (4, 4), (2, 2), (0, 1))
"""Radius of the blur, and how often what it gives is laid over the ones before: A1111's `masking.fill`."""


def filled(pixels: Pixels, mask: Pixels) -> Pixels:
    """Paint the marked part with the colours around it, blurred the more the farther they are away.

    Args:
        pixels: (H, W, 3).
        mask: (H, W).

    Returns:
        (H, W, 3), the same as `pixels` where nothing is marked.
    """
    image = Image.fromarray(pixels)
    kept = Image.fromarray(np.where(mask >= MARKED, np.uint8(0), np.uint8(255)))
    # Colours multiplied by their opacity, so that blurring does not mix in the black of what is not there.
    surroundings = Image.new("RGBa", image.size)
    surroundings.paste(image.convert("RGBA").convert("RGBa"), mask=kept)
    painted = Image.new("RGBA", image.size)
    for radius, times in _PYRAMID:
        layer = surroundings.filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        for _ in range(times):
            painted.alpha_composite(layer)
    return np.where(mask[..., None] >= MARKED, np.asarray(painted)[..., :3], pixels)


def expanded(pixels: Pixels, expand: Expand) -> tuple[Pixels, Pixels, Pixels]:
    """Lay a picture onto a larger canvas.

    Args:
        pixels: (H, W, 3).
        expand: by how much, and how softly.

    Returns:
        The canvas, its new part filled; the mask of what is drawn anew; and how much of it shows, 255 in the new part.
    """
    sides = ((expand.top, expand.bottom), (expand.left, expand.right))
    canvas = np.pad(pixels, (*sides, (0, 0)))
    height, width = canvas.shape[:2]
    old = Box(expand.left, expand.top, width - expand.right, height - expand.bottom)
    reach = 2 * expand.blur
    kept = Box(
        old.left + (reach if expand.left else 0),
        old.top + (reach if expand.top else 0),
        old.right - (reach if expand.right else 0),
        old.bottom - (reach if expand.bottom else 0),
    )
    new, mask = np.full((height, width), 255, np.uint8), np.full((height, width), 255, np.uint8)
    old.of(new)[:] = 0
    if kept.height > 0 and kept.width > 0:
        kept.of(mask)[:] = 0
    return filled(canvas, new), mask, np.maximum(blurred(mask, expand.blur), new)
