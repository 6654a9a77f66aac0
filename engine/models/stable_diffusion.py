"""Stable Diffusion 1.x as a `DiffusionModel`: CLIP text encoder, UNet, and an autoencoder of either kind."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Final

import torch

from engine.backends.base import Backend, Function
from engine.backends.torch_backend import TorchBackend
from engine.errors import ModelNotFoundError, NotFiniteError
from engine.models.base import EncodedImage, EncodedPrompt, ModelInfo
from engine.models.latent_to_rgb import STABLE_DIFFUSION_1, LatentToRgb, fit_latent_to_rgb
from engine.models.layout import PROMPT_TOKENS
from engine.models.loading import (
    lay_out_vae,
    load_scheduler_config,
    load_tokenizer,
    read_unet_plan,
)
from engine.models.locate import ModelFolder
from engine.models.parts import network_parts
from engine.models.tokenizer import Tokenizer
from engine.networks.autoencoder import AutoencoderKL, AutoencoderTiny

__all__ = ["StableDiffusion"]


STABLE_DIFFUSION_1_VAE: Final = (0.18215, 128, 256, 512, 512)
"""Scaling factor and channels, which tell the autoencoder of Stable Diffusion 1.x, fine-tuned or not, from others."""


class StableDiffusion:
    """A loaded checkpoint in diffusers layout. Implements `DiffusionModel`."""

    def __init__(
        self,
        *,
        info: ModelInfo,
        tokenizer: Tokenizer,
        text_encoder: Mapping[str, Function],
        unet: Mapping[str, Function],
        vae: Mapping[str, Function],
        vae_layout: AutoencoderKL | AutoencoderTiny,
    ) -> None:
        """Put its parts together.

        Args:
            info: what it is.
            tokenizer: which texts it reads.
            text_encoder: its functions, as a backend runs them; see `engine.models.parts`.
            unet: the same.
            vae: the same.
            vae_layout: the autoencoder, for its numbers alone; its weights may be nowhere.
        """
        self.info = info
        self._tokenizer = tokenizer
        self._text_encoder = text_encoder
        self._unet = unet
        self._vae = vae
        self._vae_layout = vae_layout

    @classmethod
    def load(
        cls, folder: ModelFolder, device: torch.device, dtype: torch.dtype, backend: Backend | None = None
    ) -> StableDiffusion:
        """Load a model that `locate` found.

        Args:
            folder: where it is.
            device: where it shall run.
            dtype: what it shall compute with.
            backend: what runs its networks; None: torch.

        Raises:
            ModelLoadError: its files cannot be served; the message names the file.
        """
        if folder.path is None:
            raise ModelNotFoundError(f"{folder.model_id} has no files to load")
        path, backend = folder.path, backend or TorchBackend()
        plan, vae_layout = read_unet_plan(path), lay_out_vae(path)
        parts = network_parts(path, dtype, device)
        return cls(
            info=ModelInfo(
                model_id=folder.model_id,
                device=device,
                dtype=dtype,
                native_height=folder.native_height,
                native_width=folder.native_width,
                latent_channels=plan.in_channels,
                pixels_per_latent=folder.pixels_per_latent,
                encoder_has_variance=isinstance(vae_layout, AutoencoderKL),
                scheduler_config=load_scheduler_config(path),
            ),
            tokenizer=load_tokenizer(path),
            unet=backend.functions(*parts["unet"]),
            text_encoder=backend.functions(*parts["text_encoder"]),
            vae=backend.functions(*parts["vae"]),
            vae_layout=vae_layout,
        )

    @functools.cached_property
    def latent_to_rgb(self) -> LatentToRgb:
        """See `DiffusionModel.latent_to_rgb`."""
        if (self._vae_layout.scaling_factor, *self._vae_layout.channels) == STABLE_DIFFUSION_1_VAE:
            return STABLE_DIFFUSION_1
        return fit_latent_to_rgb(self.decode, self.info.latent_channels, self.info.device)

    def count_truncated_tokens(self, prompt: str) -> int:
        """See `DiffusionModel.count_truncated_tokens`; the first and the last of the 77 tokens are markers."""
        return max(0, len(self._tokenizer.tokens(prompt)) - PROMPT_TOKENS)

    def encode_prompt(self, prompt: str) -> EncodedPrompt:
        """See `DiffusionModel.encode_prompt`. Padded and cut to 77 tokens, as diffusers does."""
        tokens = self._tokenizer.padded(self._tokenizer.tokens(prompt))
        embeds = self._text_encoder["forward"](torch.tensor([tokens], device=self.info.device))
        addition = self._unet["add_embedding"](embeds) if "add_embedding" in self._unet else None
        return EncodedPrompt(self._unet["pack_prompt"](embeds)[0], addition)

    def embed_time(self, timesteps: torch.Tensor, prompt: EncodedPrompt) -> torch.Tensor:
        """See `DiffusionModel.embed_time`."""
        told = [timesteps] if prompt.addition is None else [timesteps, prompt.addition]
        return self._unet["pack_time"](*told)

    def denoise(self, latents: torch.Tensor, time: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        """See `DiffusionModel.denoise`."""
        return self._unet["forward"](latents.to(self.info.dtype), time, prompt).float().contiguous()

    def encode_image(self, pixels: torch.Tensor) -> EncodedImage:
        """See `DiffusionModel.encode_image`; in diffusers' arithmetic."""
        images = (2.0 * (pixels.float() / 255) - 1.0).permute(2, 0, 1)[None].to(self.info.device, self.info.dtype)
        encoded = self._vae["encode"](images)[0].float().contiguous()
        if not bool(encoded.isfinite().all()):
            raise NotFiniteError(f"the encoder produced non-finite values{self._advice}")
        if not self.info.encoder_has_variance:
            return EncodedImage(encoded * self._vae_layout.scaling_factor, None)
        mean, log_variance = encoded.chunk(2)
        deviation = (0.5 * log_variance.clamp(-30.0, 20.0)).exp()
        return EncodedImage(mean * self._vae_layout.scaling_factor, deviation * self._vae_layout.scaling_factor)

    @property
    def _advice(self) -> str:
        return "" if self.info.dtype == torch.float32 else "; try TORCH_DTYPE=float32"

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """See `DiffusionModel.decode`."""
        scaled = (latents / self._vae_layout.scaling_factor).to(self.info.dtype)[None]
        images = self._vae["decode"](scaled)
        if not bool(images.isfinite().all()):
            raise NotFiniteError(f"the decoder produced non-finite values{self._advice}")
        pixels = ((images[0].float() / 2 + 0.5).clamp(0, 1) * 255).round()
        return pixels.to(torch.uint8).permute(1, 2, 0).contiguous()
