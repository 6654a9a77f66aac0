"""Masks: which pixels and latents are drawn anew, and which part of the picture is looked at. White is changed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from engine.pictures.resize import Pixels

__all__ = ["MARKED", "Box", "blurred", "crop_region", "latent_cells"]

MARKED: Final = 128
"""The darkest grey that counts as white where there is no between."""

_KERNEL_SIGMAS: Final = 2.5
"""The blur reaches this many standard deviations to each side, as in A1111."""
_LINES_AT_ONCE: Final = 256


@dataclass(frozen=True, slots=True)
class Box:
    """A part of a picture, in pixels."""

    left: int
    top: int
    right: int
    """The first column behind it, as `bottom` is the first row."""
    bottom: int

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    def of(self, pixels: Pixels) -> Pixels:
        """What a picture shows there; a view."""
        return pixels[self.top : self.bottom, self.left : self.right]


def blurred(mask: Pixels, sigma: int) -> Pixels:
    """Blur as A1111 does: a Gaussian of 2 * int(2.5 sigma + 0.5) + 1 pixels a side, first along rows, then columns.

    What is black stays exactly black beyond its reach.

    Args:
        mask: (H, W).
        sigma: standard deviation in pixels; 0 changes nothing.
    """
    if not sigma or not mask.any():
        return mask
    radius = int(_KERNEL_SIGMAS * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights /= weights.sum()
    # Lines without a mark stay as they are: most of a large picture, mostly.
    result = mask.copy()
    rows = np.flatnonzero(mask.any(axis=1))
    result[rows] = _convolved(mask[rows], weights)
    columns = np.flatnonzero(result.any(axis=0))
    result[:, columns] = _convolved(np.ascontiguousarray(result[:, columns].T), weights).T
    return result


def _convolved(lines: Pixels, weights: npt.NDArray[np.float64]) -> Pixels:
    """Each line (of the last axis) convolved; beyond its ends it is mirrored, without the outermost pixel twice.

    Through Fourier transforms: the direct way takes 10 s for the widest blur of the largest mask.
    """
    length, radius = lines.shape[1], len(weights) // 2
    size = 2 ** math.ceil(math.log2(length + 4 * radius))
    transfer = np.fft.rfft(weights, size)
    result = np.empty_like(lines)
    for begin in range(0, len(lines), _LINES_AT_ONCE):
        some = lines[begin : begin + _LINES_AT_ONCE].astype(np.float64)
        mirrored = np.pad(some, ((0, 0), (radius, radius)), mode="reflect" if length > 1 else "edge")
        whole = np.fft.irfft(np.fft.rfft(mirrored, size) * transfer, size)
        result[begin : begin + len(some)] = whole[:, 2 * radius : 2 * radius + length].round().clip(0, 255)
    return result


def crop_region(mask: Pixels, height: int, width: int, padding: int) -> Box:
    """The box around all that is marked, padded, then grown to the shape of what is drawn, as far as the picture goes.

    The arithmetic of diffusers' `get_crop_region`, which is A1111's.

    Args:
        mask: (H, W), not black.
        height: of what is drawn, as `width`; only their ratio counts.
        width: in pixels.
        padding: pixels at each side.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, bottom = max(int(rows[0]) - padding, 0), min(int(rows[-1]) + 1 + padding, mask.shape[0])
    left, right = max(int(columns[0]) - padding, 0), min(int(columns[-1]) + 1 + padding, mask.shape[1])
    ratio = width / height
    if (right - left) / (bottom - top) > ratio:
        top, bottom = _grown(top, bottom, int((right - left) / ratio - (bottom - top)), mask.shape[0])
    else:
        left, right = _grown(left, right, int((bottom - top) * ratio - (right - left)), mask.shape[1])
    return Box(left, top, right, bottom)


def _grown(begin: int, end: int, by: int, limit: int) -> tuple[int, int]:
    """A span made longer to both sides; one that meets a border grows to the other side only."""
    begin, end = begin - by // 2, end + by - by // 2
    if end >= limit:
        begin, end = begin - (end - limit), limit
    if begin < 0:
        begin, end = 0, end - begin
    return begin, min(end, limit)


def latent_cells(mask: Pixels, pixels_per_latent: int) -> npt.NDArray[np.bool_]:
    """Which latents are drawn anew: all those of which a pixel is marked.

    diffusers looks at one pixel of each, and loses what is thinner than a latent.

    Args:
        mask: (H, W), of what is drawn.
        pixels_per_latent: along each side.

    Returns:
        (h, w).
    """
    height, width = (size // pixels_per_latent for size in mask.shape)
    cells = mask.reshape(height, pixels_per_latent, width, pixels_per_latent) >= MARKED
    marked: npt.NDArray[np.bool_] = np.logical_or.reduce(cells, axis=(1, 3))
    return marked
