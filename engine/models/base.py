"""What the engine asks of a model: the `DiffusionModel` protocol. Knows nothing of samplers or batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from engine.models.families import STABLE_DIFFUSION_1, Family
from engine.models.latent_to_rgb import LatentToRgb
from engine.prompts.prompt import Prompt

__all__ = ["DiffusionModel", "EncodedImage", "EncodedPrompt", "ModelInfo"]


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
    """C: numbers in a latent; 4 for Stable Diffusion 1.x."""
    pixels_per_latent: int
    """Along each side, so that a picture of HxW pixels has hxw = H/n x W/n latents; 8 for Stable Diffusion 1.x."""
    encoder_has_variance: bool
    """Whether the encoder says how sure it is of each latent, and images are sampled from that."""
    scheduler_config: Mapping[str, object]
    """The checkpoint's own noise schedule: what `scheduler_config.json` says."""
    family: Family = STABLE_DIFFUSION_1
    is_inpainting: bool = False
    """Whether the network reads a mask and the masked picture's latents beside the latents: 2 C + 1 channels."""
    embeds_guidance: bool = False
    """Whether the network is told the guidance scale (*LCM*): a negative prompt then changes nothing."""

    @property
    def input_channels(self) -> int:
        """Numbers that the network is shown for each latent."""
        return 2 * self.latent_channels + 1 if self.is_inpainting else self.latent_channels

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(C, h, w) of a picture of so many pixels."""
        return self.latent_channels, height // self.pixels_per_latent, width // self.pixels_per_latent


@dataclass(frozen=True, slots=True, eq=False)
class EncodedPrompt:
    """What a model makes of one text, once: the same at every step of every picture."""

    attended: torch.Tensor
    """(L, K), what the network reads of it at each step: the keys and values of all its cross attentions."""
    addition: torch.Tensor | None = None
    """(1, E), what it adds to the embedding of the timestep; None where the timestep is all that counts there."""
    pooled: torch.Tensor | None = None
    """(1, P), the whole text as one vector, which sizes join before it is added there (*SDXL*); None elsewhere."""


@dataclass(frozen=True, slots=True, eq=False)
class EncodedImage:
    """What a model makes of one picture."""

    mean: torch.Tensor
    """(C, h, w), float32, on the device."""
    deviation: torch.Tensor | None
    """(C, h, w), standard deviations; None where the encoder has none to say."""

    def sampled(self, noise: torch.Tensor | None) -> torch.Tensor:
        """(C, h, w), latents.

        Args:
            noise: (C, h, w), standard normal, wherever it is; None only without deviations.
        """
        if self.deviation is None or noise is None:
            return self.mean
        return self.mean + self.deviation * noise.to(self.mean.device, non_blocking=True)


class DiffusionModel(Protocol):
    """A latent diffusion model, one call at a time.

    Every method gives each row the same bits whatever the other rows hold, as long as the shape of the call is the
    same. They belong to the engine's thread, but those that count, which may be called from another one.
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
        """How many tokens of a plain prompt lie beyond what `encode_prompt` reads."""
        ...

    def count_chunks(self, prompt: Prompt) -> int:
        """In how many chunks of 75 tokens `encode_prompt` reads it; 1 if it is plain.

        Raises:
            PromptError: it breaks a rule of the language, or names a textual inversion that cannot be used.
        """
        ...

    def encode_prompt(self, prompt: Prompt, num_chunks: int = 1) -> EncodedPrompt:
        """Read one prompt, in the model's dtype, on its device.

        Args:
            prompt: what to read.
            num_chunks: as many as it has, or more: empty ones follow.
        """
        ...

    def embed_time(
        self,
        timesteps: torch.Tensor,
        prompt: EncodedPrompt,
        size_ids: Sequence[float] | None = None,
        guidance_scale: float = 1.0,
    ) -> torch.Tensor:
        """Embed all timesteps of a picture's way, and what else the family's networks are told beside the text.

        Args:
            timesteps: (N,), float32: fractional ones exist, and half precision would round them.
            prompt: of the rows they are for.
            size_ids: original height and width, top and left of the crop, target height and width, in pixels; read
                where `Family.reads_sizes`. None: the native size, whole.
            guidance_scale: read where `ModelInfo.embeds_guidance`.

        Returns:
            (N, T), what the network is told at each of them; in the model's dtype, on its device.
        """
        ...

    def denoise(self, latents: torch.Tensor, time: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        """Predict noise (or velocity) for every row.

        Args:
            latents: (R, C, h, w), float32, already scaled as the sampler wants it; for inpainting models
                (R, 2 C + 1, h, w): then the mask, 1 where is drawn, and the latents of the masked picture.
            time: (R, T), rows of `embed_time`.
            prompt: (R, L, K), each row's `EncodedPrompt.attended`.

        Returns:
            (R, C, h, w), float32.

        Raises:
            torch.OutOfMemoryError: nothing has changed, and a smaller call may succeed.
        """
        ...

    def encode_image(self, pixels: torch.Tensor, hidden: torch.Tensor | None = None) -> EncodedImage:
        """Turn the pixels of one picture into its latents, scaled as `denoise` has them.

        Args:
            pixels: (H, W, 3), uint8, on the CPU.
            hidden: (h, w), bool, on the CPU: latents whose pixels are taken for middle grey.

        Raises:
            torch.OutOfMemoryError: nothing has changed.
        """
        ...

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Turn the latents of one picture into its pixels.

        Args:
            latents: (C, h, w), float32.

        Returns:
            (H, W, 3), uint8, on the model's device.

        Raises:
            torch.OutOfMemoryError: nothing has changed.
        """
        ...
