"""Where a picture's randomness comes from."""

from __future__ import annotations

import pytest
import torch

from engine.noise import draw_noise, turned


@pytest.mark.parametrize("shape", [(4, 8, 8), (4, 9, 9), (16, 16, 16)])
def test_each_draw_is_the_one_that_diffusers_would_make_at_that_step(shape: tuple[int, int, int]):
    """4x9x9 numbers are no multiple of 16, the block that torch fills: one large draw would give others."""
    generator = torch.Generator().manual_seed(3)
    expected = torch.stack([torch.randn(1, *shape, generator=generator)[0] for _ in range(3)])
    drawn = draw_noise(3, shape, 2)
    assert drawn.image is None
    assert torch.equal(drawn.entry, expected[0])
    assert torch.equal(drawn.steps, expected[1:])


@pytest.mark.parametrize(
    ("has_image", "has_mask", "order"),
    [
        (False, False, ["entry", "step", "step"]),
        (True, False, ["image", "entry", "step", "step"]),
        (True, True, ["image", "entry", "masked image", "step", "step"]),
        (False, True, ["entry", "masked image", "step", "step"]),
    ],
)
def test_draws_come_in_the_order_of_diffusers_pipelines(*, has_image: bool, has_mask: bool, order: list[str]):
    """
    The sample of the masked image is drawn, though only inpainting models use it.
    """
    generator = torch.Generator().manual_seed(3)
    expected = [torch.randn(1, 4, 9, 9, generator=generator)[0] for _ in order]
    drawn = draw_noise(3, (4, 9, 9), 2, has_image=has_image, has_mask=has_mask)
    if has_image:
        assert drawn.image is not None
        assert torch.equal(drawn.image, expected[0])
    else:
        assert drawn.image is None
    assert torch.equal(drawn.entry, expected[order.index("entry")])
    assert torch.equal(drawn.steps, torch.stack(expected[-2:]))


def test_noise_is_turned_along_the_circle_between_the_two():
    """
    As A1111's slerp, row by row: neither end is changed, and in the middle it is as loud as at the ends.
    """
    noise, other = draw_noise(1, (4, 64, 64), 0).entry, draw_noise(2, (4, 64, 64), 0).entry
    torch.testing.assert_close(turned(0.0, noise, other), noise)
    torch.testing.assert_close(turned(1.0, noise, other), other)
    middle = turned(0.5, noise, other)
    assert abs(float(middle.std()) - 1) < 0.02
    assert abs(float((noise + other).std() / 2) - 1) > 0.2
    torch.testing.assert_close((middle * noise).mean(), (middle * other).mean(), atol=0.02, rtol=0)
    torch.testing.assert_close(turned(0.3, noise, noise), noise)


def test_other_peoples_randomness_is_neither_used_nor_disturbed():
    torch.manual_seed(1)
    untouched = torch.randn(4)
    torch.manual_seed(1)
    first = draw_noise(3, (4, 8, 8), 2).steps
    assert torch.equal(torch.randn(4), untouched)
    assert torch.equal(draw_noise(3, (4, 8, 8), 2).steps, first)
