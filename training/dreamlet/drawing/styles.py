"""The four styles: how outlines look, and what is done to the finished picture."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from training.dreamlet.drawing.colours import INK, Colour, Paint, darker, luminance, mix

PAPER: Colour = (250, 246, 236)


@dataclass(frozen=True, slots=True)
class Style:
    """One way of drawing the same scene."""

    outline: float
    """Width of the outline of figures, in units of the picture's shorter side; 0 for none."""
    outline_colour: Callable[[Colour], Colour]
    """The outline of a figure of the given colour."""
    pixels_per_pixel: float
    """How much larger than the picture it is painted; below 1 for blocks."""
    finish: Callable[[Image.Image, Random], Image.Image]
    """The last touch to the picture."""


def _tinted(colour: Colour) -> Colour:
    return Paint.of(colour).line if luminance(colour) < 75 else mix(darker(colour, 0.5), INK, 0.35)


def _inked(colour: Colour) -> Colour:
    return (176, 180, 204) if luminance(colour) < 75 else INK


def _as_it_is(picture: Image.Image, _random: Random) -> Image.Image:
    return picture


def _comic_panel(picture: Image.Image, _random: Random) -> Image.Image:
    """Strong colours in an inked frame."""
    pixels = np.asarray(picture).astype(np.float32)
    grey = pixels.mean(axis=2, keepdims=True)
    strong = np.clip(grey + (pixels - grey) * 1.18, 0, 255).round().astype(np.uint8)
    unit = min(picture.size) / 256
    margin, line = round(7 * unit), round(3 * unit)
    framed = np.full_like(strong, 250)
    framed[margin - line : -(margin - line), margin - line : -(margin - line)] = INK
    framed[margin:-margin, margin:-margin] = strong[margin:-margin, margin:-margin]
    return Image.fromarray(framed)


def _on_paper(picture: Image.Image, random: Random) -> Image.Image:
    """Paint that runs: pale, blotched, with a ragged white margin."""
    soft = picture.filter(ImageFilter.GaussianBlur(min(picture.size) / 320))
    pixels = np.asarray(soft).astype(np.float32)
    blotches, edge = _paper(picture.width, picture.height, random.randrange(6))
    pixels = pixels * (0.86 * blotches) + np.float32(0.14) * np.array(PAPER, dtype=np.float32)
    pixels = pixels * (1 - edge) + np.array(PAPER, dtype=np.float32) * edge
    return Image.fromarray(np.clip(pixels, 0, 255).round().astype(np.uint8))


@cache
def _paper(width: int, height: int, number: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """One of a few sheets: the blotches around 1, (H, W, 1), and the bare margin from 0 to 1, (H, W, 1)."""
    noise = np.random.default_rng(number)

    def clouds(cells: int) -> NDArray[np.float32]:
        coarse = Image.fromarray(noise.random((cells, cells)).astype(np.float32) * 2 - 1)
        return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))

    blotches = 1.02 + 0.075 * clouds(5) + 0.035 * clouds(14)
    unit = min(width, height)
    rows = np.arange(height)[:, None] + 0.5
    columns = np.arange(width)[None] + 0.5
    inward = np.minimum(np.minimum(rows, height - rows), np.minimum(columns, width - columns)) / unit
    edge = np.clip((0.045 + 0.02 * clouds(9) + 0.008 * clouds(24) - inward) / 0.008, 0, 1)
    return blotches[..., None].astype(np.float32), edge[..., None].astype(np.float32)


STYLES: dict[str, Style] = {
    "digital": Style(0.0075, _tinted, 2, _as_it_is),
    "cartoon": Style(0.0145, _inked, 2, _comic_panel),
    "pixel": Style(0.0157, _tinted, 0.25, _as_it_is),
    "watercolor": Style(0.0, _tinted, 2, _on_paper),
}
"""By name."""
