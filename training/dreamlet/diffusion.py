"""What the denoising network is trained to say: noising, targets and weights. (The loop is in `train_diffusion.py`.)"""

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel

CAPTION_DROPOUT = 0.1
WEIGHT_CAP = 5.0
"""How much more an error of the denoised latents counts where there is little noise than where there is nothing else.

Min-SNR weighting (Hang et al., 2023) caps the weight too, but lets it fall to nothing with the signal. The first steps
of drawing, where the caption alone decides on colours and layout, would then hardly be trained.
"""
PURE_SHARE = 0.06
"""Of the samples, trained without any signal, at one of the last timesteps."""
PURE_FROM = 960


class Denoiser(nn.Module):
    """Text encoder and UNet as one module, so that one optimizer and one average hold both."""

    def __init__(self, text_encoder: CLIPTextModel, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.unet = unet
        self._noising = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")

    def forward(self, latents: torch.Tensor, ids: torch.Tensor, empty_ids: torch.Tensor) -> torch.Tensor:
        """The loss on a batch: the error of the velocities, weighted by min(SNR + 1, 5) / (SNR + 1).

        Args:
            latents: (N, 4, H/8, W/8), scaled to unit variance, float32.
            ids: (N, 77), the captions as tokens.
            empty_ids: (77,), the tokens of the empty caption, which takes the place of one caption in ten.

        Returns:
            A scalar.
        """
        count, where = len(latents), latents.device
        dropped = torch.rand(count, device=where) < CAPTION_DROPOUT
        prompt_embeds = self.text_encoder(torch.where(dropped[:, None], empty_ids, ids)).last_hidden_state
        # The schedule ends at a signal of 0.068, but drawing begins with none: a network that has always read colours
        # and brightness off the remainder would leave the caption out of its first, decisive step.
        is_pure = torch.rand(count, device=where) < PURE_SHARE
        timesteps = torch.randint(1000, (count,), device=where)
        timesteps = torch.where(is_pure, PURE_FROM + timesteps % (1000 - PURE_FROM), timesteps)
        noise = torch.randn_like(latents)
        noisy = self._noising.add_noise(latents, noise, timesteps)
        noisy = torch.where(is_pure[:, None, None, None], noise, noisy)
        target = self._noising.get_velocity(latents, noise, timesteps)
        predicted = self.unet(noisy, timesteps, prompt_embeds).sample.float()
        kept = self._noising.alphas_cumprod.to(where)[timesteps]
        snr = kept / (1 - kept)
        weights = (snr + 1).clamp(max=WEIGHT_CAP) / (snr + 1)
        loss: torch.Tensor = ((predicted - target).square().mean(dim=(1, 2, 3)) * weights).mean()
        return loss
