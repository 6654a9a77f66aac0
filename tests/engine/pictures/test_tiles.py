"""Enlarging in tiles: every pixel once, and no seams."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.pictures.resize import resize
from engine.pictures.tiles import lanczos_tile, num_tiles, tiles
from tests.engine.pictures.test_resize import noise


def enlarged(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    result = np.zeros((height, width, 3), np.uint8)
    for tile in tiles(height, width):
        tile.of(result)[:] = lanczos_tile(pixels, height, width, tile)
    return result


@given(height=st.integers(1, 4096), width=st.integers(1, 4096))
@settings(max_examples=20)
def test_tiles_cover_every_pixel_once(height: int, width: int):
    count = np.zeros((height, width), np.uint8)
    for tile in tiles(height, width):
        tile.of(count)[:] += 1
    assert (count == 1).all()
    assert num_tiles(height, width) == len(list(tiles(height, width)))


def in_one_piece(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pillow's Lanczos, rows before columns."""
    return resize(resize(pixels, pixels.shape[0], width), height, width)


@pytest.mark.parametrize("factor", [2, 4])
def test_whole_factors_give_what_lanczos_gives_in_one_piece(factor: int):
    pixels = noise(300, 340)
    height, width = 300 * factor, 340 * factor
    np.testing.assert_array_equal(enlarged(pixels, height, width), in_one_piece(pixels, height, width))


def test_other_factors_differ_by_the_rounding_of_coordinates():
    pixels = noise(300, 340)
    difference = abs(enlarged(pixels, 777, 1031).astype(int) - in_one_piece(pixels, 777, 1031))
    assert difference.max() <= 2
    assert (difference > 0).mean() < 0.01
