"""Enlarging in tiles of one fixed size: each is a short piece of work, and the bytes do not depend on the memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np
from PIL import Image

from engine.pictures.mask import Box
from engine.pictures.resize import Pixels

__all__ = ["TILE", "lanczos_tile", "num_tiles", "tiles"]

_LANCZOS_LOBES: Final = 3
"""Pixels to each side that an enlarged one is made of."""

TILE: Final = 512
"""Pixels of the result, along each side; less at its right and lower border."""


def tiles(height: int, width: int) -> Iterator[Box]:
    """The tiles of a result, row by row."""
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            yield Box(left, top, min(left + TILE, width), min(top + TILE, height))


def num_tiles(height: int, width: int) -> int:
    """How many they are."""
    return -(-height // TILE) * -(-width // TILE)


def lanczos_tile(pixels: Pixels, height: int, width: int, tile: Box) -> Pixels:
    """One tile of a picture in another size; Lanczos reads beyond the tile, so that no seam shows.

    Args:
        pixels: (H, W, 3), the whole picture.
        height: of the whole result, as `width`.
        width: in pixels.
        tile: one of its `tiles`.
    """
    down, right = pixels.shape[0] / height, pixels.shape[1] / width
    reach = math.ceil(_LANCZOS_LOBES * max(1.0, down))
    above, below = max(0, int(tile.top * down) - reach), min(pixels.shape[0], math.ceil(tile.bottom * down) + reach)
    # One axis after the other: which one Pillow begins with depends on the shape of the tile, and so do the bits.
    band = Image.fromarray(pixels[above:below])
    columns = (tile.left * right, 0, tile.right * right, band.height)
    band = band.resize((tile.width, band.height), Image.Resampling.LANCZOS, box=columns)
    rows = (0, tile.top * down - above, tile.width, tile.bottom * down - above)
    return np.asarray(band.resize((tile.width, tile.height), Image.Resampling.LANCZOS, box=rows))
