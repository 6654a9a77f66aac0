"""Where a picture's randomness comes from."""

from __future__ import annotations

import pytest
import torch

from engine.state import draw_noise


@pytest.mark.parametrize("shape", [(4, 8, 8), (4, 9, 9)])
def test_each_draw_is_the_one_that_diffusers_would_make_at_that_step(shape: tuple[int, int, int]):
    """4x9x9 numbers are no multiple of 16, the block that torch fills: one large draw would give others."""
    generator = torch.Generator().manual_seed(3)
    expected = torch.stack([torch.randn(1, *shape, generator=generator)[0] for _ in range(3)])
    assert torch.equal(draw_noise(3, shape, 3), expected)


def test_other_peoples_randomness_is_neither_used_nor_disturbed():
    torch.manual_seed(1)
    untouched = torch.randn(4)
    torch.manual_seed(1)
    first = draw_noise(3, (4, 8, 8), 2)
    assert torch.equal(torch.randn(4), untouched)
    assert torch.equal(draw_noise(3, (4, 8, 8), 2), first)
