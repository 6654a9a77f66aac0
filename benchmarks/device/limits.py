"""How fast a picture could be: the arithmetic that it takes, over the rate at which the device multiplies matrices."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.device.clock import seconds_per_call
from engine.models.layout import PROMPT_TOKENS, read_configs
from engine.models.loading import lay_out_vae, read_unet_plan
from engine.networks.layers import ResidualBlock
from engine.networks.unet import UNet

__all__ = ["PictureFlop", "matrix_rate"]


class PictureFlop:
    """Floating-point operations of a model, counted on modules without memory. The text encoder's are left out.

    Stable Diffusion 1.5 at 512x512: 800.3 GFLOP a row and 2514.5 GFLOP a decode, 47.3 TFLOP a picture of 28 guided
    steps; both prompts together, their keys and values included, would add 0.02 TFLOP.
    """

    def __init__(self, folder: Path, *, height: int, width: int) -> None:
        """Count.

        Args:
            folder: of a model in diffusers layout.
            height: of the picture, pixels.
            width: of the picture, pixels.
        """
        plan = read_unet_plan(folder)
        vae = lay_out_vae(folder)
        factor = read_configs(folder).pixels_per_latent
        with torch.device("meta"), torch.inference_mode():
            unet = UNet(plan)
            latents = torch.empty(1, plan.in_channels, height // factor, width // factor)
            prompt = unet.pack_prompt(torch.empty(1, PROMPT_TOKENS, plan.text_width))
            widths = [block.time_emb_proj.out_features for block in unet.modules() if isinstance(block, ResidualBlock)]
            time = torch.empty(1, sum(widths))
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            unet(latents, time, prompt)
        self.unet_row: int = counter.get_total_flops()
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            vae.decode(latents[:, : plan.out_channels])
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
