"""What the engine asks of a model: the `DiffusionModel` protocol. Knows nothing of samplers or batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from engine.models.latent_to_rgb import LatentToRgb

__all__ = ["DiffusionModel", "ModelInfo"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """What a loaded model is, in numbers."""

    model_id: str
    device: torch.device
    dtype: torch.dtype
    """Of the network's weights and activations. Latents between steps are always float32."""
    native_height: int
    """Pixels it was trained at."""
    native_width: int
    latent_channels: int
    scheduler_config: Mapping[str, object]
    """The checkpoint's own noise schedule: what `scheduler_config.json` says."""


class DiffusionModel(Protocol):
    """A latent diffusion model, one call at a time.

    Every method gives each row the same bits whatever the other rows hold, as long as the shape of the call is the
    same. `denoise`, `encode_prompt` and `decode` belong to the engine's thread; `count_truncated_tokens` may be called
    from another one.
    """

    @property
    def info(self) -> ModelInfo:
        """What it is."""
        ...

    @property
    def latent_to_rgb(self) -> LatentToRgb:
        """What its latents look like. Found out when it is first asked for, on the engine's thread; then known."""
        ...

    def count_truncated_tokens(self, prompt: str) -> int:
        """How many tokens of the prompt lie beyond what `encode_prompt` reads."""
        ...

    def encode_prompt(self, prompt: str) -> torch.Tensor:
        """Read one prompt.

        Returns:
            (L, D), in the model's dtype, on its device.
        """
        ...

    def denoise(self, latents: torch.Tensor, timesteps: torch.Tensor, prompt_embeds: torch.Tensor) -> torch.Tensor:
        """Predict noise (or velocity) for every row.

        Args:
            latents: (R, C, H/8, W/8), float32, already scaled as the sampler wants it.
            timesteps: (R,), float32: fractional ones exist, and half precision would round them.
            prompt_embeds: (R, L, D), as `encode_prompt` gave them.

        Returns:
            (R, C, H/8, W/8), float32.

        Raises:
            torch.OutOfMemoryError: nothing has changed, and a smaller call may succeed.
        """
        ...

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Turn the latents of one picture into its pixels.

        Args:
            latents: (C, H/8, W/8), float32.

        Returns:
            (H, W, 3), uint8, on the model's device.

        Raises:
            torch.OutOfMemoryError: nothing has changed.
        """
        ...
