"""The noise of a picture: draws with names, in diffusers' order, from a generator of the picture's own."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["Noise", "draw_noise", "turned"]


@dataclass(frozen=True, slots=True, eq=False)
class Noise:
    """All that one leg of a picture will ever draw; standard normal, float32, on the CPU."""

    image: torch.Tensor | None
    """(C, h, w), for the sample of what the encoder says of an image; None where there is nothing to sample."""
    masked: torch.Tensor | None
    """(C, h, w), the same of the image without its masked part; read by inpainting models alone."""
    entry: torch.Tensor
    """(C, h, w), of the first latents."""
    steps: torch.Tensor
    """(draws, C, h, w), of the steps that draw, in order."""


def draw_noise(
    seed: int, shape: tuple[int, int, int], num_steps: int, *, has_image: bool = False, has_mask: bool = False
) -> Noise:
    """Draw in diffusers' order: the image's sample, the first latents, the masked image's sample, each step's noise.

    From a CPU generator of the picture's own, in float32, so that a seed means the same on every device, in every
    precision and in any company. One draw at a time: torch fills blocks of 16, and a single large draw would differ
    from diffusers' where a size is not a multiple of 16.

    Args:
        seed: of this picture.
        shape: (C, h, w).
        num_steps: how many steps draw.
        has_image: whether an image is encoded by an autoencoder whose latents have a variance.
        has_mask: whether diffusers would encode the image without its masked part too, by such an autoencoder.
            Networks of four channels never look at it, but its sample is drawn.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw() -> torch.Tensor:
        return torch.randn((1, *shape), generator=generator)[0]

    image = draw() if has_image else None
    entry = draw()
    masked = draw() if has_mask else None
    steps = torch.empty(num_steps, *shape)
    for step in steps:
        torch.randn((1, *shape), generator=generator, out=step[None])
    return Noise(image, masked, entry, steps)


def turned(strength: float, noise: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Turn noise towards another, each row of latents on its own (*slerp*): A1111's variations.

    Args:
        strength: 0 leaves it, 1 gives the other.
        noise: (C, h, w).
        other: (C, h, w).
    """
    cosines = (noise / noise.norm(dim=1, keepdim=True) * other / other.norm(dim=1, keepdim=True)).sum(1)
    if cosines.mean() > 0.9995:  # next to parallel: the sines vanish
        return (1 - strength) * noise + strength * other
    angles = cosines.acos()
    keep, take = ((1 - strength) * angles).sin() / angles.sin(), (strength * angles).sin() / angles.sin()
    mixed: torch.Tensor = keep.unsqueeze(1) * noise + take.unsqueeze(1) * other
    return mixed
