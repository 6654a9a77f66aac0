"""What colours latents stand for, without a decoder: the linear map that previews are made with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import avg_pool2d, interpolate

__all__ = ["STABLE_DIFFUSION_1", "LatentToRgb", "fit_latent_to_rgb"]

NUM_PICTURES: Final = 2
"""Drawn at random for a fit: 512 places for 5 unknowns a colour, or for 17 where latents have 16 channels. More take
time at every start and gain nothing."""
LATENT_SIZE: Final = 16
NUM_PATCHES: Final = 4
"""Along each side of a random picture: decoders were taught what is smooth, not noise."""
CONTRAST: Final = 0.7
"""Standard deviation of the patches. True latents have about 1 in all, but less within one picture."""


@dataclass(frozen=True, slots=True, eq=False)
class LatentToRgb:
    """One latent -> one pixel: `latent @ factors + offset`, in [0, 1]."""

    factors: npt.NDArray[np.float32]
    """(C, 3)."""
    offset: npt.NDArray[np.float32]
    """(3,)."""

    def __call__(self, latents: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """Colour latents.

        Args:
            latents: (C, h, w).

        Returns:
            (h, w, 3), RGB. What is not a number is black.
        """
        colours = np.nan_to_num(np.moveaxis(latents, 0, -1), posinf=0, neginf=0) @ self.factors + self.offset
        return (colours.clip(0, 1) * 255).round().astype(np.uint8)


# Colours in [-1, 1], fitted by keturn to pictures of Stable Diffusion 1.4:
# https://discuss.huggingface.co/t/decoding-latents-to-rgb-without-upscaling/23204
_KETURN: Final = (
    (0.298, 0.207, 0.208),
    (0.187, 0.286, 0.173),
    (-0.158, 0.189, 0.264),
    (-0.184, -0.271, -0.473),
)

STABLE_DIFFUSION_1: Final = LatentToRgb(
    factors=np.array(_KETURN, dtype=np.float32) / np.float32(2), offset=np.full(3, 0.5, dtype=np.float32)
)
"""Of the autoencoder that every Stable Diffusion 1.x has."""


@torch.inference_mode()
def fit_latent_to_rgb(
    decode: Callable[[torch.Tensor], torch.Tensor], latent_channels: int, device: torch.device
) -> LatentToRgb:
    """Find the map of an autoencoder by decoding a few random, smooth latents; always the same ones.

    Args:
        decode: see `DiffusionModel.decode`.
        latent_channels: C.
        device: where `decode` wants its latents.
    """
    generator = torch.Generator().manual_seed(0)
    patches = CONTRAST * torch.randn(NUM_PICTURES, latent_channels, NUM_PATCHES, NUM_PATCHES, generator=generator)
    latents = interpolate(patches, size=LATENT_SIZE, mode="bilinear")
    pixels = torch.stack([decode(picture.to(device)).cpu() for picture in latents]).permute(0, 3, 1, 2)
    colours = avg_pool2d(pixels.double() / 255, pixels.shape[-1] // LATENT_SIZE)
    places = latents.movedim(1, -1).reshape(-1, latent_channels).double().numpy()
    knowns = np.concatenate([places, np.ones((len(places), 1))], axis=1)
    solution = np.linalg.lstsq(knowns, colours.movedim(1, -1).reshape(-1, 3).numpy(), rcond=None)[0].astype(np.float32)
    return LatentToRgb(factors=solution[:-1], offset=solution[-1])
