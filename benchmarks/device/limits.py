"""How fast a picture could be: the arithmetic that it takes, over the rate at which the device multiplies matrices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.device.clock import seconds_per_call
from engine.models.layout import PROMPT_TOKENS, read_configs

__all__ = ["PictureFlop", "matrix_rate"]


class PictureFlop:
    """Floating-point operations of a model, counted on modules without memory. The text encoder's are left out.

    Stable Diffusion 1.5 at 512x512: 803.3 GFLOP a row and 2514.5 GFLOP a decode, 47.5 TFLOP a picture of 28 guided
    steps; both prompts together would add 0.01 TFLOP.
    """

    def __init__(self, folder: Path, *, height: int, width: int) -> None:
        """Count.

        Args:
            folder: of a model in diffusers layout.
            height: of the picture, pixels.
            width: of the picture, pixels.
        """
        unet_config = _config(folder / "unet")
        vae_config = _config(folder / "vae")
        is_tiny = vae_config["_class_name"] == "AutoencoderTiny"
        if is_tiny:
            vae_config.pop("block_out_channels", None)  # derived from the others, and warned about when it is given
        with torch.device("meta"):
            unet = UNet2DConditionModel.from_config(unet_config)
            vae = (AutoencoderTiny if is_tiny else AutoencoderKL).from_config(vae_config)
            factor = read_configs(folder).pixels_per_latent
            latents = torch.empty(1, unet_config["in_channels"], height // factor, width // factor)
            timesteps = torch.empty(1)
            prompt_embeds = torch.empty(1, PROMPT_TOKENS, unet_config["cross_attention_dim"])
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            unet(latents, timesteps, encoder_hidden_states=prompt_embeds)
        self.unet_row: int = counter.get_total_flops()
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            vae.decode(latents)
        self.decode: int = counter.get_total_flops()

    def picture(self, num_inference_steps: int) -> int:
        """Of a guided picture, by a sampler that calls the model once a step."""
        return 2 * num_inference_steps * self.unet_row + self.decode


@torch.inference_mode()
def matrix_rate(device: torch.device, dtype: torch.dtype, *, size: int, calls: int) -> float:
    """Floating-point operations a second in a product of two square matrices. Random ones: zeros run faster."""
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    product = torch.empty_like(left)
    seconds = seconds_per_call(device, lambda: torch.mm(left, right, out=product), calls=calls)
    return 2 * size**3 / seconds.median


def _config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config
