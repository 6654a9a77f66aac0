"""Training objective of the UNet: noise levels, noisy latents, targets, loss. (The loop: `train_unet.py`.)"""

from dataclasses import dataclass

import torch
from diffusers import DDPMScheduler

CAPTION_DROPOUT = 0.1
"""Of the captions, left empty: guidance needs a prediction without a prompt."""
USUAL_LOG_SIGMA, SPREAD = 0.4, 1.3
"""Where most is decided: noise levels are drawn around it."""
UNIFORM_SHARE = 0.15
"""Of the noise levels, drawn evenly over all timesteps instead."""
PURE_SHARE = 0.05
"""Of the samples, noise alone at one of the last timesteps. The schedule ends at a signal of 0.068, but drawing begins
with none: a network that has always read colours off the remainder would leave the caption out of its first step."""
PURE_FROM = 960

KEPT = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").alphas_cumprod
"""(1000,), the share of the signal's variance that each timestep keeps; that of Stable Diffusion."""
LOG_SIGMAS = 0.5 * ((1 - KEPT) / KEPT).log()


@dataclass(frozen=True, slots=True)
class Noised:
    """Latents on their way to noise, and what the network shall say of them."""

    latents: torch.Tensor
    """(N, 16, H/16, W/16)."""
    timesteps: torch.Tensor
    """(N,), from 0 to 999."""
    velocity: torch.Tensor
    """The target: of the signal towards the noise."""


def draw_timesteps(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Timesteps (N,), and which samples are to be noise alone."""
    wanted = USUAL_LOG_SIGMA + SPREAD * torch.randn(count, generator=generator)
    timesteps = torch.searchsorted(LOG_SIGMAS, wanted).clamp(0, 999)
    roll = torch.rand(count, generator=generator)
    timesteps = torch.where(roll < UNIFORM_SHARE, torch.randint(1000, (count,), generator=generator), timesteps)
    is_pure = roll > 1 - PURE_SHARE
    return torch.where(is_pure, PURE_FROM + timesteps % (1000 - PURE_FROM), timesteps), is_pure


def noised(latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor, is_pure: torch.Tensor) -> Noised:
    """Mix latents with noise.

    Args:
        latents: (N, 16, H/16, W/16) of unit variance, float32.
        noise: the same shape.
        timesteps: (N,).
        is_pure: (N,), where nothing of the latents shall be left.
    """
    kept = KEPT[timesteps].to(latents.device)[:, None, None, None]
    mixed = kept.sqrt() * latents + (1 - kept).sqrt() * noise
    return Noised(
        torch.where(is_pure.to(latents.device)[:, None, None, None], noise, mixed),
        timesteps.to(latents.device),
        kept.sqrt() * noise - (1 - kept).sqrt() * latents,
    )


def weighted_error(predicted: torch.Tensor, velocity: torch.Tensor, cells: torch.Tensor, weight: float) -> torch.Tensor:
    """The mean squared error, in which subjects count more; a scalar.

    Args:
        predicted: (N, 16, H/16, W/16).
        velocity: the same shape.
        cells: (N, H/16, W/16), True where a subject is.
        weight: of those cells; 1 for the others.
    """
    weights = 1 + (weight - 1) * cells[:, None].float()
    return ((predicted.float() - velocity).square() * (weights / weights.mean())).mean()
