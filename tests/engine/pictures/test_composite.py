"""What is drawn, laid over what was there: exact where nothing is marked."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.pictures.composite import laid_over, pasted
from engine.pictures.mask import Box
from engine.pictures.resize import resize
from tests.engine.pictures.test_resize import noise


def test_every_mix_of_two_bytes_is_rounded_to_the_nearest():
    """
    All 16.7 million of them: the old byte where the mask is 0, the new one where it is 255.
    """
    old, new = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    old, new = old[..., None], new[..., None]
    for share in range(256):
        mixed = laid_over(old, new, np.full(old.shape[:2], share, np.uint8))
        exact = (share * new.astype(float) + (255 - share) * old.astype(float)) / 255
        assert abs(mixed - exact).max() <= 0.5
        if share in {0, 255}:
            np.testing.assert_array_equal(mixed, new if share else old)


@given(
    box=st.tuples(*[st.integers(0, 30)] * 2, *[st.integers(31, 60)] * 2).map(lambda sides: Box(*sides)),
    seed=st.integers(0, 9),
)
def test_a_part_is_pasted_where_it_came_from(box: Box, seed: int):
    old, new = noise(60, 60, seed), noise(64, 64, seed + 10)
    mask = np.zeros((60, 60), np.uint8)
    box.of(mask)[:] = 255
    mask[40:] = 0
    result = pasted(old, new, mask, box)
    np.testing.assert_array_equal(result[mask == 0], old[mask == 0])
    whole = np.zeros_like(old)
    box.of(whole)[:] = resize(new, box.height, box.width, "crop")
    np.testing.assert_array_equal(result[mask == 255], whole[mask == 255])
