"""What stands where something new is drawn: the colours of the surroundings, and a larger canvas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter, ImageOps

from engine.params import Expand
from engine.pictures.canvas import expanded, filled
from tests.engine.pictures.test_resize import noise


def a1111_fill(image: Image.Image, mask: Image.Image) -> Image.Image:
    """`masking.fill` of AUTOMATIC1111's web UI, as its source has it."""
    result = Image.new("RGBA", image.size)
    masked = Image.new("RGBa", image.size)
    masked.paste(image.convert("RGBA").convert("RGBa"), mask=ImageOps.invert(mask))
    for radius, repeats in [(256, 1), (64, 1), (16, 2), (4, 4), (2, 2), (0, 1)]:
        blurred = masked.filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        for _ in range(repeats):
            result.alpha_composite(blurred)
    return result.convert("RGB")


def test_what_is_marked_takes_the_colours_around_it_and_the_rest_stays():
    pixels = noise(96, 120)
    mask = np.zeros((96, 120), np.uint8)
    mask[30:60, 40:90] = 255
    result = filled(pixels, mask)
    expected = np.asarray(a1111_fill(Image.fromarray(pixels), Image.fromarray(mask)))
    np.testing.assert_array_equal(result[mask == 255], expected[mask == 255])
    np.testing.assert_array_equal(result[mask == 0], pixels[mask == 0])
    assert result[45, 65].std() < 30  # a mean of noise, hence grey
    assert 90 < result[45, 65].mean() < 165


@settings(max_examples=25)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    sides=st.tuples(*[st.sampled_from([0, 8, 24])] * 4).filter(any),
    blur=st.integers(0, 12),
)
def test_a_canvas_shows_the_new_part_wholly_and_deep_inside_nothing_of_it(
    size: tuple[int, int], sides: tuple[int, int, int, int], blur: int
):
    left, top, right, bottom = sides
    pixels = noise(*size)
    expand = Expand(left=left, top=top, right=right, bottom=bottom, blur=blur)
    canvas, mask, soft = expanded(pixels, expand)
    height, width = size[0] + top + bottom, size[1] + left + right
    assert canvas.shape == (height, width, 3)
    assert mask.shape == soft.shape == (height, width)
    is_old = np.zeros((height, width), bool)
    is_old[top : top + size[0], left : left + size[1]] = True
    np.testing.assert_array_equal(canvas[is_old].reshape(pixels.shape), pixels)
    assert (mask[~is_old] == 255).all()
    assert (soft[~is_old] == 255).all()
    if not blur:
        assert not soft[is_old].any()
        assert not mask[is_old].any()


@pytest.mark.parametrize("side", ["left", "top", "right", "bottom"])
def test_a_blurred_seam_reaches_into_the_old_part_and_fades(side: str):
    canvas, mask, soft = expanded(noise(64, 64), Expand(**{side: 32}, blur=4))
    turned = {"left": soft, "right": soft[:, ::-1], "top": soft.T, "bottom": soft[::-1].T}[side][:, 32:]
    marked = {"left": mask, "right": mask[:, ::-1], "top": mask.T, "bottom": mask[::-1].T}[side][:, 32:]
    assert (marked[:, :8] == 255).all()
    assert not marked[:, 8:].any()
    line = turned[32].astype(int)
    assert line[0] > 240
    assert (np.diff(line) <= 0).all()
    assert not line[8 + 10 :].any()
    assert canvas.shape in {(96, 64, 3), (64, 96, 3)}
