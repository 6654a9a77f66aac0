"""Pictures in another size as diffusers makes them, and masks of which nothing gets lost."""

from __future__ import annotations

import numpy as np
import pytest
from diffusers.image_processor import VaeImageProcessor
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from engine.pictures.resize import as_grey, resize, resize_mask

SIZES = st.integers(1, 90)
MODES = ("stretch", "crop", "fill")


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("mode", MODES)
@given(old=st.tuples(*[st.integers(9, 90)] * 2), new=st.tuples(*[st.integers(4, 12)] * 2))
def test_a_picture_is_resized_as_diffusers_does_it(mode: str, old: tuple[int, int], new: tuple[int, int]):
    height, width = (8 * side for side in new)
    pixels = noise(*old)
    processor = VaeImageProcessor()
    theirs = processor.resize(Image.fromarray(pixels), height, width, "default" if mode == "stretch" else mode)
    np.testing.assert_array_equal(resize(pixels, height, width, mode), np.asarray(theirs))


@pytest.mark.parametrize("size", [(1, 4096), (4096, 1), (1, 1), (4096, 4096)])
@pytest.mark.parametrize("mode", MODES)
def test_a_ribbon_is_resized_too_without_a_giant_between(mode: str, size: tuple[int, int]):
    """
    Scaled until it covers 2048x2048, a line of 4096 pixels would have 17 thousand million.
    """
    assert resize(np.full((*size, 3), 99, np.uint8), 2048, 2048, mode)[7, 9].tolist() == [99, 99, 99]
    assert resize_mask(np.full(size, 99, np.uint8), 2048, 2048, mode)[9, 7] == 99


def test_the_way_for_ribbons_gives_the_same_picture(monkeypatch: pytest.MonkeyPatch):
    """
    Up to its coordinates, which have the precision of a float there.
    """
    pixels = noise(64, 200)
    whole = resize(pixels, 160, 96, "crop").astype(int)
    monkeypatch.setattr("engine.pictures.resize._MOST_PIXELS", 1)
    assert abs(resize(pixels, 160, 96, "crop") - whole).max() <= 2


@pytest.mark.parametrize("mode", MODES)
@given(old=st.tuples(SIZES, SIZES), new=st.tuples(SIZES, SIZES), data=st.data())
def test_a_marked_pixel_never_vanishes(mode: str, old: tuple[int, int], new: tuple[int, int], data: st.DataObject):
    """
    But for what is cut off, and nothing is marked that was not.
    """
    mask = np.zeros(old, np.uint8)
    assert not resize_mask(mask, *new, mode).any()
    mask[data.draw(st.integers(0, old[0] - 1)), data.draw(st.integers(0, old[1] - 1))] = 200
    result = resize_mask(mask, *new, mode)
    assert result.shape == new
    assert mode == "crop" or result.max() == 200
    assert set(np.unique(result)) <= {0, 200}


@given(size=st.tuples(SIZES, SIZES))
def test_a_mask_of_the_right_size_stays_as_it_is(size: tuple[int, int]):
    mask = noise(*size)[..., 0]
    for mode in MODES:
        np.testing.assert_array_equal(resize_mask(mask, *size, mode), mask)


@pytest.mark.parametrize("mode", MODES)
def test_mask_and_picture_are_moved_alike(mode: str):
    picture = np.zeros((60, 100, 3), np.uint8)
    picture[20:40, 30:50] = 255
    large = resize(picture, 128, 128, mode)[..., 0] >= 128
    marked = resize_mask(picture[..., 0], 128, 128, mode) >= 128
    assert not (large & ~marked).any()
    assert (marked & ~large).mean() < 0.03


def test_a_picture_is_a_mask_by_its_brightness():
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    assert as_grey(colours).tolist() == [[76, 150, 29]]
    assert as_grey(colours[..., 0]).tolist() == [[255, 0, 0]]
