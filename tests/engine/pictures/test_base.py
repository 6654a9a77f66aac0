"""What a request's pictures become, and the promise of inpainting: what is not marked stays as it was."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InvalidParamsError
from engine.params import Expand, GenerationParams, InputImage, MaskWish
from engine.pictures.base import make_base, picture_of
from engine.pictures.mask import blurred
from engine.pictures.resize import resize, resize_mask
from tests.engine.pictures.test_mask import masks
from tests.engine.pictures.test_resize import noise

IMAGE, MASK = "1" * 64, "2" * 64


def named(pixels: np.ndarray, name: str) -> InputImage:
    return InputImage(sha256=name, height=pixels.shape[0], width=pixels.shape[1])


def wish(image: np.ndarray, **wishes: object) -> GenerationParams:
    ordinary = {"prompt": "a cat", "seed": 1, "image": named(image, IMAGE), "height": 64, "width": 64}
    return GenerationParams(**(ordinary | wishes))


@settings(max_examples=200)
@given(
    mask=masks(least=4).filter(lambda mask: mask.max() >= 128),
    size=st.tuples(st.integers(8, 16), st.integers(8, 16)),
    area=st.sampled_from(["whole", "masked"]),
    mode=st.sampled_from(["stretch", "crop", "fill"]),
    content=st.sampled_from(["original", "fill"]),
    invert=st.booleans(),
    blur=st.sampled_from([0, 0, 1, 5]),
    padding=st.sampled_from([0, 5, 32]),
)
def test_pixels_that_are_not_marked_equal_the_input(
    *,
    mask: np.ndarray,
    size: tuple[int, int],
    area: str,
    mode: str,
    content: str,
    invert: bool,
    blur: int,
    padding: int,
):
    """
    Bit for bit, whatever the network draws: those of the image as it came (`masked`) or as it was resized (`whole`).
    """
    image = noise(*mask.shape)
    height, width = (8 * side for side in size)
    mask_wish = MaskWish(image=named(mask, MASK), area=area, content=content, invert=invert, blur=blur, padding=padding)
    request = wish(image, mask=mask_wish, height=height, width=width, resize=mode)
    sharp = 255 - mask if invert else mask
    if sharp.max() < 128:
        with pytest.raises(InvalidParamsError, match=r"^mask must mark something: grey 128 to 255, not \d+$"):
            make_base(request, {IMAGE: image, MASK: mask}, 8)
        return
    base = make_base(request, {IMAGE: image, MASK: mask}, 8)
    assert base is not None
    assert base.pixels.shape == (height, width, 3)
    assert base.cells is not None
    assert base.cells.shape == size
    assert base.cells.any() or mode == "crop"  # what is cut off is not drawn
    drawn = noise(height, width, seed=1)
    answer = base.finished(drawn)
    assert answer.shape[:2] == request.answer_size
    soft = blurred(sharp, blur)
    old = image if area == "masked" else resize(image, height, width, mode)
    shown = soft if area == "masked" else resize_mask(soft, height, width, mode)
    np.testing.assert_array_equal(answer[shown == 0], old[shown == 0])
    if area == "whole":
        np.testing.assert_array_equal(answer[shown == 255], drawn[shown == 255])


@settings(max_examples=50)
@given(
    size=st.tuples(st.integers(20, 90), st.integers(20, 90)),
    sides=st.tuples(*[st.sampled_from([0, 8, 16])] * 4).filter(any),
    blur=st.sampled_from([0, 2]),
)
def test_an_expanded_picture_keeps_what_it_was(size: tuple[int, int], sides: tuple[int, int, int, int], blur: int):
    image = noise(*size)
    expand = Expand(left=sides[0], top=sides[1], right=sides[2], bottom=sides[3], blur=blur)
    request = wish(image, expand=expand, strength=1.0, height=80, width=96)
    base = make_base(request, {IMAGE: image}, 8)
    assert base is not None
    answer = base.finished(noise(80, 96, seed=1))
    inner = resize(image, 80 - sides[1] - sides[3], 96 - sides[0] - sides[2])
    kept = answer[sides[1] : sides[1] + inner.shape[0], sides[0] : sides[0] + inner.shape[1]]
    inside = (slice(9 if blur else 0, inner.shape[0] - 9 if blur else None),
              slice(9 if blur else 0, inner.shape[1] - 9 if blur else None))  # fmt: skip
    np.testing.assert_array_equal(kept[inside], inner[inside])
    assert base.cells is not None
    assert base.cells[:, : sides[0] // 8].all()
    if not blur:
        assert base.cells.sum() == (80 * 96 - inner.shape[0] * inner.shape[1]) / 64


@pytest.mark.parametrize("blur", [0, 4])
@pytest.mark.parametrize("area", ["whole", "masked"])
def test_a_mask_of_one_pixel_changes_something(area: str, blur: int):
    image, mask = noise(256, 256), np.zeros((256, 256), np.uint8)
    mask[100, 200] = 255
    request = wish(image, mask=MaskWish(image=named(mask, MASK), area=area, blur=blur))
    base = make_base(request, {IMAGE: image, MASK: mask}, 8)
    assert base is not None
    assert base.cells is not None
    assert base.cells.any()
    drawn = base.pixels ^ 255
    old = image if area == "masked" else base.pixels
    assert (base.finished(drawn) != old).any()


def test_the_marked_part_is_filled_only_where_it_is_asked_for():
    image, mask = noise(64, 64), np.zeros((64, 64), np.uint8)
    mask[16:48, 16:48] = 255
    inputs = {IMAGE: image, MASK: mask}
    for content in ("original", "noise", "nothing"):  # noise and nothing are made of latents
        base = make_base(wish(image, mask=MaskWish(image=named(mask, MASK), content=content)), inputs, 8)
        assert base is not None
        np.testing.assert_array_equal(base.pixels, image)
    base = make_base(wish(image, mask=MaskWish(image=named(mask, MASK), content="fill")), inputs, 8)
    assert base is not None
    assert (base.pixels[mask == 0] == image[mask == 0]).all()
    assert base.pixels[mask == 255].std() < image[mask == 255].std() / 2


def test_without_a_mask_the_answer_is_what_is_drawn():
    image, drawn = noise(50, 70), noise(64, 64, 1)
    base = make_base(wish(image), {IMAGE: image}, 8)
    assert base is not None
    assert base.cells is None
    assert base.finished(drawn) is drawn
    assert make_base(GenerationParams(prompt="a cat", seed=1), {}, 8) is None


def test_a_grey_picture_is_an_image_and_a_coloured_one_a_mask():
    grey, colours = noise(64, 64)[..., 0], noise(64, 64, 1)
    assert picture_of("image", named(grey, IMAGE), {IMAGE: grey})[5, 9].tolist() == [int(grey[5, 9])] * 3
    request = wish(grey, mask=MaskWish(image=named(colours, MASK)))
    assert make_base(request, {IMAGE: grey, MASK: colours}, 8) is not None


def test_a_picture_that_did_not_come_or_has_another_size_is_refused():
    image = noise(64, 64)
    request = wish(image, mask=MaskWish(image=named(image, MASK)))
    with pytest.raises(InvalidParamsError, match=f"^image must come with the request, not '{IMAGE}'$"):
        make_base(request, {MASK: image}, 8)
    with pytest.raises(InvalidParamsError, match=f"^mask must come with the request, not '{MASK}'$"):
        make_base(request, {IMAGE: image}, 8)
    message = "mask must have the size that was said, 64x64, not '60x64'"
    with pytest.raises(InvalidParamsError, match=f"^{re.escape(message)}$"):
        make_base(request, {IMAGE: image, MASK: image[:, :60]}, 8)
