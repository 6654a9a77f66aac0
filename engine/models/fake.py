"""A model without weights: tensors of the real shapes, every input visible in the output. For tests and benchmarks."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch

from engine.models.base import EncodedImage, EncodedPrompt, ModelInfo
from engine.models.fake_words import fake_chunks
from engine.models.latent_to_rgb import LatentToRgb
from engine.models.locate import FAKE_MODELS
from engine.prompts.prompt import Prompt

__all__ = ["FakeModel"]

SEQUENCE_LENGTH: Final = 77
EMBEDDING_SIZE: Final = 32
SCHEDULER_CONFIG: Final = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "clip_sample": False,
    "skip_prk_steps": True,
    "prediction_type": "epsilon",
}
"""That of Stable Diffusion 1.5."""
MID_GREY: Final = 127.5
CONTRAST: Final = 50.0
"""Pixel values that a latent of 1 adds."""


class FakeModel:
    """Draws a pattern from prompt, seed and timesteps in microseconds. Implements `DiffusionModel`.

    Sensitive on purpose: another seed, prompt, timestep, guidance or neighbour's row changes the pixels.
    """

    def __init__(self, model_id: str = "fake", *, max_rows: int | None = None) -> None:
        """Make one of `FAKE_MODELS` that runs out of memory beyond `max_rows` rows a call; None: never."""
        latent_channels, pixels_per_latent = FAKE_MODELS[model_id]
        self.info = ModelInfo(
            model_id=model_id,
            device=torch.device("cpu"),
            dtype=torch.float32,
            native_height=512,
            native_width=512,
            latent_channels=latent_channels,
            pixels_per_latent=pixels_per_latent,
            encoder_has_variance=True,
            scheduler_config=SCHEDULER_CONFIG,
        )
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
        self._signal_levels = (1 - betas).cumprod(0).sqrt()
        self.max_rows = max_rows
        self.num_calls = 0
        """Calls of `denoise` so far."""
        self.num_prompts = 0
        """Calls of `encode_prompt` so far."""
        self.num_images = 0
        """Calls of `encode_image` so far."""

    @property
    def latent_to_rgb(self) -> LatentToRgb:
        """Exactly what `decode` does."""
        others = self.info.latent_channels - 3
        channels = np.vstack([np.eye(3), np.full((others, 3), 0.5 / math.sqrt(others))])
        return LatentToRgb(
            factors=(channels * CONTRAST / 255).astype(np.float32), offset=np.full(3, MID_GREY / 255, dtype=np.float32)
        )

    def count_truncated_tokens(self, prompt: str) -> int:
        """A token is a word here."""
        return max(0, len(prompt.split()) - (SEQUENCE_LENGTH - 2))

    def count_chunks(self, prompt: Prompt) -> int:
        """Of 75 words."""
        return len(fake_chunks(prompt))

    def encode_prompt(self, prompt: Prompt, num_chunks: int = 1) -> EncodedPrompt:
        """(77 k, 32): for each chunk noise whose seed is its hash."""
        self.num_prompts += 1
        chunks = [*fake_chunks(prompt), *[""] * num_chunks][:num_chunks]
        return EncodedPrompt(torch.cat([_noise_of(chunk, prompt.clip_skip) for chunk in chunks]))

    def embed_time(
        self,
        timesteps: torch.Tensor,
        prompt: EncodedPrompt,  # noqa: ARG002 - as the protocol has it
        size_ids: Sequence[float] | None = None,  # noqa: ARG002 - as above
        guidance_scale: float = 1.0,  # noqa: ARG002 - as above
    ) -> torch.Tensor:
        """(N, 2): how much picture and how much noise latents hold at each timestep, fractional ones too."""
        below = timesteps.floor().long()
        above = (below + 1).clamp(max=len(self._signal_levels) - 1)
        fraction = timesteps - below
        signal = self._signal_levels[below] * (1 - fraction) + self._signal_levels[above] * fraction
        return torch.stack([signal, (1 - signal * signal).sqrt()], dim=1)

    def denoise(self, latents: torch.Tensor, time: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        """Almost the noise that is there, bent by a pixel's neighbourhood and the prompt; no sums across rows."""
        if self.max_rows is not None and latents.shape[0] > self.max_rows:
            raise torch.OutOfMemoryError(f"{latents.shape[0]} rows do not fit (injected)")
        self.num_calls += 1
        signal, noise = time[:, 0].view(-1, 1, 1, 1), time[:, 1].view(-1, 1, 1, 1)
        told = prompt.view(len(prompt), -1, SEQUENCE_LENGTH, EMBEDDING_SIZE).sum(1)  # of all chunks
        colours = told[:, : self.info.latent_channels, :1].unsqueeze(-1)
        mixed = latents + 0.5 * latents.roll(1, dims=-1) + 0.25 * latents.roll(1, dims=1) + colours
        return noise * latents + 0.5 * signal * (mixed / (1 + mixed.abs()))

    def encode_image(self, pixels: torch.Tensor, hidden: torch.Tensor | None = None) -> EncodedImage:
        """What `decode` would make these pixels of, each latent the mean of its own; and a tenth of uncertainty."""
        self.num_images += 1
        factor, channels = self.info.pixels_per_latent, self.info.latent_channels
        height, width = pixels.shape[0] // factor, pixels.shape[1] // factor
        colours = (pixels.float() - MID_GREY) / CONTRAST
        means = colours.view(height, factor, width, factor, 3).mean(dim=(1, 3)).permute(2, 0, 1)
        if hidden is not None:
            means = means * ~hidden
        mean = torch.cat([means, means.new_zeros(channels - 3, height, width)])
        return EncodedImage(mean, torch.full_like(mean, 0.1))

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Three of the channels, brightened by the others, enlarged."""
        colours = latents[:3] + 0.5 * latents[3:].sum(0) / math.sqrt(self.info.latent_channels - 3)
        pixels = (MID_GREY + CONTRAST * colours).clamp(0, 255).to(torch.uint8).permute(1, 2, 0)
        factor = self.info.pixels_per_latent
        return pixels.repeat_interleave(factor, dim=0).repeat_interleave(factor, dim=1)


def _noise_of(text: str, clip_skip: int) -> torch.Tensor:
    digest = hashlib.sha256(text.encode() + b"\0" * clip_skip).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return torch.randn(SEQUENCE_LENGTH, EMBEDDING_SIZE, generator=generator)
