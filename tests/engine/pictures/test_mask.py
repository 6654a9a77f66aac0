"""Masks: blur, the region that is drawn, and the latents that are."""

from __future__ import annotations

import numpy as np
import pytest
from diffusers.image_processor import VaeImageProcessor
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import convolve1d

from engine.pictures.mask import Box, blurred, crop_region, latent_cells

SIDES = st.integers(1, 80)


@st.composite
def masks(draw: st.DrawFn, *, least: int = 1) -> np.ndarray:
    """Black with a few marked rectangles; never all black."""
    height, width = draw(st.integers(least, 80)), draw(st.integers(least, 80))
    mask = np.zeros((height, width), np.uint8)
    for _ in range(draw(st.integers(1, 3))):
        top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        bottom, right = draw(st.integers(top + 1, height)), draw(st.integers(left + 1, width))
        mask[top:bottom, left:right] = draw(st.integers(1, 255))
    return mask


@given(mask=masks(), sigma=st.integers(1, 64))
@settings(max_examples=60)
def test_blur_is_a_gaussian_of_two_and_a_half_sigmas_a_side(mask: np.ndarray, sigma: int):
    """
    Rows and columns one after the other, each rounded: within one step of grey, where rounding goes the other way.
    """
    offsets = np.arange(-int(2.5 * sigma + 0.5), int(2.5 * sigma + 0.5) + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    expected = mask
    for axis in (1, 0):
        expected = convolve1d(expected.astype(float), kernel / kernel.sum(), axis, mode="mirror").round()
    assert abs(blurred(mask, sigma) - expected).max() <= 1


def test_blur_leaves_black_black_beyond_its_reach_and_nothing_blurred_without_it():
    mask = np.zeros((64, 64), np.uint8)
    mask[20:24, 20:24] = 255
    assert not blurred(mask, 4)[34:].any()
    assert blurred(mask, 4)[30].any()
    assert blurred(mask, 0) is mask
    white = np.full((64, 48), 255, np.uint8)
    np.testing.assert_array_equal(blurred(white, 64), white)


@given(mask=masks(), size=st.tuples(SIDES, SIDES), padding=st.integers(0, 40))
def test_the_region_is_the_one_diffusers_finds(mask: np.ndarray, size: tuple[int, int], padding: int):
    height, width = size
    box = crop_region(mask, height, width, padding)
    theirs = VaeImageProcessor.get_crop_region(Image.fromarray(mask), width, height, padding)
    assert (box.left, box.top, box.right, box.bottom) == theirs
    rest = mask.copy()
    box.of(rest)[:] = 0
    assert not rest.any()


@given(mask=masks(least=8), factor=st.sampled_from([4, 8]))
def test_a_latent_is_drawn_anew_if_any_of_its_pixels_is_marked(mask: np.ndarray, factor: int):
    height, width = (size // factor for size in mask.shape)
    mask = mask[: height * factor, : width * factor]
    cells = latent_cells(mask, factor)
    for row in range(height):
        for column in range(width):
            cell = mask[row * factor : (row + 1) * factor, column * factor : (column + 1) * factor]
            assert cells[row, column] == (cell.max() >= 128)


@pytest.mark.parametrize("factor", [8, 16])
def test_a_line_of_one_pixel_survives(factor: int):
    """
    diffusers' nearest neighbour would keep none of it.
    """
    mask = np.zeros((128, 128), np.uint8)
    mask[factor - 1] = 255
    assert latent_cells(mask, factor)[0].all()
    assert not latent_cells(mask, factor)[1:].any()


def test_a_box_knows_its_size_and_what_it_holds():
    box = Box(left=1, top=2, right=4, bottom=8)
    pixels = np.arange(100, dtype=np.uint8).reshape(10, 10)
    assert (box.height, box.width) == (6, 3) == box.of(pixels).shape
