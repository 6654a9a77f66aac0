"""How a picture or a mask of one size becomes one of another: `stretch`, `crop`, `fill`.

Pictures as diffusers' `VaeImageProcessor` does it, whose ways are A1111's resize modes 0, 1 and 2: Lanczos, in Pillow's
8-bit arithmetic. Masks so that nothing that is marked gets lost.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from engine.picture_params import Resize

__all__ = ["Pixels", "as_grey", "resize", "resize_mask"]

Pixels = npt.NDArray[np.uint8]
"""(H, W, 3), RGB, or (H, W), grey."""

_MOST_PIXELS: Final = 2**26
"""Of a picture between scaling and cutting: that of a ribbon would have billions."""


def resize(pixels: Pixels, height: int, width: int, mode: Resize = "stretch") -> Pixels:
    """Give a picture another size.

    Args:
        pixels: of any size.
        height: of the result, as `width`.
        width: in pixels.
        mode: what happens if the shapes differ.
    """
    image = Image.fromarray(pixels)
    if mode == "stretch":
        return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))
    scaled_height, scaled_width = _scaled(image.height, image.width, height, width, covers=mode == "crop")
    top, left = height // 2 - scaled_height // 2, width // 2 - scaled_width // 2
    if scaled_height * scaled_width > _MOST_PIXELS:  # only of `crop`
        # The same filter at the same places, but for their rounding.
        down, right = image.height / scaled_height, image.width / scaled_width
        bottom_right = min(image.width, (width - left) * right), min(image.height, (height - top) * down)
        box = (-left * right, -top * down, *bottom_right)
        return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS, box=box))
    scaled = image.resize((scaled_width, scaled_height), Image.Resampling.LANCZOS)
    result = Image.new(image.mode, (width, height))
    result.paste(scaled, (left, top))
    if mode == "fill":
        _stretch_edges(result, scaled, top, left)
    return np.asarray(result)


def _scaled(height: int, width: int, new_height: int, new_width: int, *, covers: bool) -> tuple[int, int]:
    """The size at which a picture of unchanged shape covers another, or fits into it."""
    is_wider = new_width * height < width * new_height
    if is_wider == covers:
        return new_height, max(1, width * new_height // height)
    return max(1, height * new_width // width), new_width


def _stretch_edges(result: Image.Image, scaled: Image.Image, top: int, left: int) -> None:
    """Continue what was pasted at (left, top) to the borders, by a picture made of its outermost lines."""
    width, height = result.size
    if top > 0:
        above = scaled.resize((width, top), box=(0, 0, width, 0))
        below = scaled.resize((width, top), box=(0, scaled.height, width, scaled.height))
        result.paste(above, (0, 0))
        result.paste(below, (0, top + scaled.height))
    elif left > 0:
        before = scaled.resize((left, height), box=(0, 0, 0, height))
        behind = scaled.resize((left, height), box=(scaled.width, 0, scaled.width, height))
        result.paste(before, (0, 0))
        result.paste(behind, (left + scaled.width, 0))


def resize_mask(mask: Pixels, height: int, width: int, mode: Resize = "stretch") -> Pixels:
    """Give a mask another size, each pixel being the brightest of those it stands for: a thin line never vanishes.

    Args:
        mask: (H, W).
        height: of the result, as `width`.
        width: in pixels.
        mode: as of the picture that the mask belongs to.
    """
    old_height, old_width = mask.shape
    scaled_height, scaled_width = height, width
    if mode != "stretch":
        scaled_height, scaled_width = _scaled(old_height, old_width, height, width, covers=mode == "crop")
    rows = _brightest(mask, 0, scaled_height, height)
    return _brightest(rows, 1, scaled_width, width)


def _brightest(mask: Pixels, axis: int, scaled: int, size: int) -> Pixels:
    """Scale one axis and take `size` lines out of the middle; beyond the edges the outermost line goes on."""
    old = mask.shape[axis]
    places = (np.arange(size) - (size // 2 - scaled // 2)).clip(0, scaled - 1)
    first, last = places * old // scaled, -(-(places + 1) * old // scaled) - 1
    result: Pixels = mask.take(first, axis)
    for further in range(1, math.ceil(old / scaled) + 1):
        np.maximum(result, mask.take(np.minimum(first + further, last), axis), out=result)
    return result


def as_grey(pixels: Pixels) -> Pixels:
    """(H, W): a mask as it is, a picture by its brightness (ITU-R 601)."""
    return pixels if pixels.ndim == 2 else np.asarray(Image.fromarray(pixels).convert("L"))
