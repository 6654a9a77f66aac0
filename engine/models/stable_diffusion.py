"""Stable Diffusion 1, 2 and XL as a `DiffusionModel`: CLIP text encoders, UNet, and an autoencoder of either kind."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Final

import torch

from engine.backends.base import Backend, Function
from engine.backends.torch_backend import TorchBackend
from engine.errors import ModelNotFoundError, NotFiniteError
from engine.models.base import EncodedImage, EncodedPrompt, ModelInfo
from engine.models.inverted_words import load_inversions
from engine.models.latent_to_rgb import STABLE_DIFFUSION_1, LatentToRgb, fit_latent_to_rgb
from engine.models.layout import PROMPT_TOKENS, read_configs
from engine.models.loading import lay_out_vae, read_unet_plan
from engine.models.locate import ModelFolder
from engine.models.parts import autoencoder_dtype, network_parts
from engine.models.prompt_cutter import load_tokenizer, most_chunks
from engine.models.texts import TextReader
from engine.models.textual_inversions import TextualInversion
from engine.networks.autoencoder import AutoencoderKL, AutoencoderTiny
from engine.prompts.prompt import Prompt
from engine.transfer import sent

__all__ = ["StableDiffusion"]


STABLE_DIFFUSION_1_VAE: Final = (0.18215, 128, 256, 512, 512)
"""Scaling factor and channels, which tell the autoencoder of Stable Diffusion 1.x, fine-tuned or not, from others."""


class StableDiffusion:
    """A loaded checkpoint in diffusers layout. Implements `DiffusionModel`."""

    def __init__(
        self,
        *,
        info: ModelInfo,
        texts: Sequence[TextReader],
        unet: Mapping[str, Function],
        vae: Mapping[str, Function],
        vae_layout: AutoencoderKL | AutoencoderTiny,
        vae_dtype: torch.dtype,
        guidance_width: int = 0,
        zeros_for_empty: bool = False,
    ) -> None:
        """Put its parts together.

        Args:
            info: what it is.
            texts: what reads its prompts.
            unet: its functions, as a backend runs them; see `engine.models.parts`.
            vae: the same.
            vae_layout: the autoencoder, for its numbers alone; its weights may be nowhere.
            vae_dtype: what the autoencoder computes with.
            guidance_width: see `UNetPlan`.
            zeros_for_empty: whether an empty text is all zeros to the network.
        """
        self.info = info
        self._texts = texts
        self._vae_dtype = vae_dtype
        self._guidance_width = guidance_width
        self._zeros_for_empty = zeros_for_empty
        self._unet = unet
        self._vae = vae
        self._vae_layout = vae_layout

    @classmethod
    def load(
        cls,
        folder: ModelFolder,
        device: torch.device,
        dtype: torch.dtype,
        backend: Backend | None = None,
        vae_dtype: torch.dtype | None = None,
        inversions: Sequence[TextualInversion] = (),
    ) -> StableDiffusion:
        """Load a model that `locate` found.

        Args:
            folder: where it is.
            device: where it shall run.
            dtype: what it shall compute with.
            backend: what runs its networks; None: torch.
            vae_dtype: what its autoencoder shall compute with; None: as the rest, but float32 where it is known to
                overflow in float16.
            inversions: textual inversions that prompts may name.

        Raises:
            ModelLoadError: its files cannot be served; the message names the file.
        """
        if folder.path is None:
            raise ModelNotFoundError(f"{folder.model_id} has no files to load")
        path, backend = folder.path, backend or TorchBackend()
        plan, vae_layout = read_unet_plan(path), lay_out_vae(path)
        configs = read_configs(path)
        vae_dtype = vae_dtype or autoencoder_dtype(configs, dtype)
        parts = network_parts(path, dtype, device, vae_dtype)
        loaded = load_inversions(inversions, [configs.text_width(part) for part in configs.text_encoders])
        texts: list[TextReader] = []
        for index, part in enumerate(configs.text_encoders):
            ((name, encode),) = backend.functions(*parts[part]).items()
            texts.append(
                TextReader(
                    load_tokenizer(path, part),
                    encode,
                    width=configs.text_width(part),
                    num_layers=configs.text_layers(part),
                    device=device,
                    is_for_xl=name == "encode_for_xl",
                    load=parts[part][0].load,
                    inversions=loaded,
                    encoder=index,
                )
            )
        return cls(
            info=ModelInfo(
                model_id=folder.model_id,
                device=device,
                dtype=dtype,
                native_height=folder.native_height,
                native_width=folder.native_width,
                latent_channels=plan.out_channels,
                pixels_per_latent=folder.pixels_per_latent,
                encoder_has_variance=isinstance(vae_layout, AutoencoderKL),
                scheduler_config=configs.scheduler,
                family=configs.family,
                is_inpainting=plan.in_channels != plan.out_channels,
                embeds_guidance=plan.guidance_width > 0,
            ),
            texts=texts,
            unet=backend.functions(*parts["unet"]),
            vae=backend.functions(*parts["vae"]),
            vae_layout=vae_layout,
            vae_dtype=vae_dtype,
            guidance_width=plan.guidance_width,
            zeros_for_empty=configs.zeros_for_empty,
        )

    @functools.cached_property
    def latent_to_rgb(self) -> LatentToRgb:
        """See `DiffusionModel.latent_to_rgb`."""
        if (self._vae_layout.scaling_factor, *self._vae_layout.channels) == STABLE_DIFFUSION_1_VAE:
            return STABLE_DIFFUSION_1
        return fit_latent_to_rgb(self.decode, self.info.latent_channels, self.info.device)

    def count_truncated_tokens(self, prompt: str) -> int:
        """See `DiffusionModel.count_truncated_tokens`."""
        return self._texts[0].cutter.count_truncated_tokens(prompt)

    def count_chunks(self, prompt: Prompt) -> int:
        """See `DiffusionModel.count_chunks`."""
        return most_chunks((reader.cutter for reader in self._texts), prompt)

    def encode_prompt(self, prompt: Prompt, num_chunks: int = 1) -> EncodedPrompt:
        """See `DiffusionModel.encode_prompt`. Plain ones are padded and cut to 77 tokens, as diffusers does."""
        read = [reader.read(prompt, num_chunks) for reader in self._texts]
        embeds = torch.cat([text.embeds for text in read], dim=-1) if len(read) > 1 else read[0].embeds
        if self.info.family.reads_sizes:
            pooled = read[-1].pooled
            if self._zeros_for_empty and not prompt.text:
                embeds, pooled = torch.zeros_like(embeds), torch.zeros_like(pooled)
            return EncodedPrompt(self._unet["pack_prompt"](embeds)[0], pooled=pooled)
        first = embeds[:, :PROMPT_TOKENS]
        addition = self._unet["add_embedding"](first) if "add_embedding" in self._unet else None
        return EncodedPrompt(self._unet["pack_prompt"](embeds)[0], addition)

    def embed_time(
        self,
        timesteps: torch.Tensor,
        prompt: EncodedPrompt,
        size_ids: Sequence[float] | None = None,
        guidance_scale: float = 1.0,
    ) -> torch.Tensor:
        """See `DiffusionModel.embed_time`."""
        told = [self._guidance_waves(guidance_scale)] if self._guidance_width else []
        if prompt.pooled is not None:
            native = (self.info.native_height, self.info.native_width)
            numbers = torch.tensor([size_ids or (*native, 0, 0, *native)], dtype=torch.float32)
            told.append(self._unet["add_embedding"](prompt.pooled, sent(numbers, self.info.device)))
        elif prompt.addition is not None:
            told.append(prompt.addition)
        return self._unet["pack_guided_time" if self._guidance_width else "pack_time"](timesteps, *told)

    def _guidance_waves(self, guidance_scale: float) -> torch.Tensor:
        """(1, G): sines and cosines of the guidance scale; diffusers' `get_guidance_scale_embedding`."""
        half = self._guidance_width // 2
        exponents = torch.arange(half, dtype=torch.float32) * -(math.log(10_000) / (half - 1))
        angles = 1000 * torch.tensor([[guidance_scale - 1.0]]) * exponents.exp()
        return sent(torch.cat([angles.sin(), angles.cos()], dim=1).to(self.info.dtype), self.info.device)

    def denoise(self, latents: torch.Tensor, time: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        """See `DiffusionModel.denoise`."""
        return self._unet["forward"](latents.to(self.info.dtype), time, prompt).float().contiguous()

    def encode_image(self, pixels: torch.Tensor, hidden: torch.Tensor | None = None) -> EncodedImage:
        """See `DiffusionModel.encode_image`; in diffusers' arithmetic."""
        images = 2.0 * (pixels.float() / 255) - 1.0
        if hidden is not None:
            factor = self.info.pixels_per_latent
            images = images * ~hidden.repeat_interleave(factor, 0).repeat_interleave(factor, 1)[..., None]
        images = images.permute(2, 0, 1)[None].to(self.info.device, self._vae_dtype)
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
        return "" if self._vae_dtype == torch.float32 else "; try VAE_DTYPE=float32"

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """See `DiffusionModel.decode`."""
        scaled = (latents / self._vae_layout.scaling_factor).to(self._vae_dtype)[None]
        images = self._vae["decode"](scaled)
        if not bool(images.isfinite().all()):
            raise NotFiniteError(f"the decoder produced non-finite values{self._advice}")
        pixels = ((images[0].float() / 2 + 0.5).clamp(0, 1) * 255).round()
        return pixels.to(torch.uint8).permute(1, 2, 0).contiguous()
