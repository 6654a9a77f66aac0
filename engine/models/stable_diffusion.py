"""Stable Diffusion 1.x as a `DiffusionModel`: CLIP text encoder, UNet, and an autoencoder of either kind."""

from __future__ import annotations

import functools
import threading
from typing import Any, Final

import torch

from engine.errors import ModelNotFoundError, NotFiniteError
from engine.models.base import ModelInfo
from engine.models.latent_to_rgb import STABLE_DIFFUSION_1, LatentToRgb, fit_latent_to_rgb
from engine.models.layout import PROMPT_TOKENS
from engine.models.loading import (
    load_scheduler_config,
    load_text_encoder,
    load_tokenizer,
    load_unet,
    load_vae,
)
from engine.models.locate import ModelFolder

__all__ = ["StableDiffusion"]


STABLE_DIFFUSION_1_VAE: Final = (0.18215, 128, 256, 512, 512)
"""Scaling factor and channels, which tell the autoencoder of Stable Diffusion 1.x, fine-tuned or not, from others."""


class StableDiffusion:
    """A loaded checkpoint in diffusers layout. Implements `DiffusionModel`."""

    def __init__(self, *, info: ModelInfo, tokenizer: Any, text_encoder: Any, unet: Any, vae: Any) -> None:  # noqa: ANN401 - transformers and diffusers ship no types
        self.info = info
        self._tokenizer = tokenizer
        self._text_encoder = text_encoder
        self._unet = unet
        self._vae = vae
        # The fast tokenizers set truncation on themselves before every call.
        self._tokenizing = threading.Lock()

    @classmethod
    def load(cls, folder: ModelFolder, device: torch.device, dtype: torch.dtype) -> StableDiffusion:
        """Load a model that `locate` found.

        Raises:
            ModelLoadError: its files cannot be served; the message names the file.
        """
        if folder.path is None:
            raise ModelNotFoundError(f"{folder.model_id} has no files to load")
        unet = load_unet(folder.path, dtype, device)
        return cls(
            info=ModelInfo(
                model_id=folder.model_id,
                device=device,
                dtype=dtype,
                native_height=folder.native_height,
                native_width=folder.native_width,
                latent_channels=unet.config.in_channels,
                scheduler_config=load_scheduler_config(folder.path),
            ),
            tokenizer=load_tokenizer(folder.path),
            text_encoder=load_text_encoder(folder.path, dtype, device),
            unet=unet,
            vae=load_vae(folder.path, dtype, device),
        )

    @functools.cached_property
    def latent_to_rgb(self) -> LatentToRgb:
        """See `DiffusionModel.latent_to_rgb`."""
        config = self._vae.config
        if (config.scaling_factor, *config.block_out_channels) == STABLE_DIFFUSION_1_VAE:
            return STABLE_DIFFUSION_1
        return fit_latent_to_rgb(self.decode, self.info.latent_channels, self.info.device)

    def count_truncated_tokens(self, prompt: str) -> int:
        """See `DiffusionModel.count_truncated_tokens`; the first and the last of the 77 tokens are markers."""
        with self._tokenizing:
            tokens = self._tokenizer(prompt, truncation=False, padding=False, verbose=False).input_ids
        return max(0, len(tokens) - PROMPT_TOKENS)

    def encode_prompt(self, prompt: str) -> torch.Tensor:
        """See `DiffusionModel.encode_prompt`. Padded and cut to 77 tokens, as diffusers does."""
        with self._tokenizing:
            tokens = self._tokenizer(
                prompt, padding="max_length", max_length=PROMPT_TOKENS, truncation=True, return_tensors="pt"
            ).input_ids
        embeds: torch.Tensor = self._text_encoder(tokens.to(self.info.device))[0]
        return embeds[0]

    def denoise(self, latents: torch.Tensor, timesteps: torch.Tensor, prompt_embeds: torch.Tensor) -> torch.Tensor:
        """See `DiffusionModel.denoise`."""
        sample = latents.to(self.info.dtype)
        # The layout in which convolutions run fastest, on CPUs and GPUs alike; asked for anew since stacking undoes it.
        sample = sample.contiguous(memory_format=torch.channels_last)
        output: torch.Tensor = self._unet(sample, timesteps, encoder_hidden_states=prompt_embeds, return_dict=False)[0]
        return output.float()

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """See `DiffusionModel.decode`."""
        scaled = (latents / self._vae.config.scaling_factor).to(self.info.dtype)
        images: torch.Tensor = self._vae.decode(scaled[None], return_dict=False)[0]
        if not bool(images.isfinite().all()):
            raise NotFiniteError("the decoder gave numbers that are not finite; try TORCH_DTYPE=float32")
        pixels = ((images[0].float() / 2 + 0.5).clamp(0, 1) * 255).round()
        return pixels.to(torch.uint8).permute(1, 2, 0).contiguous()
