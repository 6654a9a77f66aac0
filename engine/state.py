"""One picture on its way from noise to pixels: `DenoisingState`, and where its randomness comes from."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from engine.journey import Journey
from engine.params import LIMITS, GenerationParams

__all__ = ["BatchKey", "DenoisingState", "draw_noise", "make_state"]

BatchKey = tuple[int, int]
"""(latent height, latent width): only states of one size can share a model call."""


@dataclass(slots=True, eq=False, kw_only=True)
class DenoisingState:
    """One picture being drawn. Owned by the engine's thread."""

    request_id: str
    image_index: int
    seed: int
    prompt: str
    negative_prompt: str | None
    """None: unguided, one model row."""
    guidance_scale: torch.Tensor
    """(1, 1, 1), float32, on the device."""
    num_calls: int
    timesteps: torch.Tensor
    """(n,), float32, on the device."""
    input_scales: torch.Tensor
    """(n, 1, 1, 1), float32, on the device."""
    matrices: torch.Tensor
    """(n, k, k + 2), float32, on the device."""
    draws: tuple[bool, ...]
    slots: torch.Tensor
    """(k, C, H/8, W/8), float32, on the device; the latents first."""
    noise: torch.Tensor
    """(draws, C, H/8, W/8), float32, on the device: every later draw of this picture's generator, in order."""
    prompt_embeds: torch.Tensor | None = None
    """(L, D); set before the first step."""
    negative_prompt_embeds: torch.Tensor | None = None
    """(L, D); stays None if unguided."""
    call_index: int = 0
    """Model calls already taken."""
    noise_index: int = 0
    """Later draws already used."""

    @property
    def batch_key(self) -> BatchKey:
        """What it must share with the others in a model call."""
        return self.slots.shape[-2], self.slots.shape[-1]

    @property
    def num_rows(self) -> int:
        """Model rows it takes in each call."""
        return 1 if self.negative_prompt is None else 2

    @property
    def latents(self) -> torch.Tensor:
        """(C, H/8, W/8), float32."""
        return self.slots[0]

    @property
    def is_encoded(self) -> bool:
        """Whether its prompts have been read."""
        return self.prompt_embeds is not None

    @property
    def is_denoised(self) -> bool:
        """Whether it has taken its last step."""
        return self.call_index == self.num_calls

    @property
    def height(self) -> int:
        """Pixels."""
        return self.slots.shape[-2] * LIMITS.size_multiple

    @property
    def width(self) -> int:
        """Pixels."""
        return self.slots.shape[-1] * LIMITS.size_multiple


def draw_noise(seed: int, shape: tuple[int, int, int], num_draws: int) -> torch.Tensor:
    """All that one picture's generator will ever give, in diffusers' order: the first latents, then each step's noise.

    From a CPU generator of the picture's own, in float32, so that a seed means the same on every device, in every
    precision and in any company. One draw at a time: torch fills blocks of 16, and a single large draw would differ
    from diffusers' where a size is not a multiple of 16.

    Args:
        seed: of this picture.
        shape: (C, H/8, W/8).
        num_draws: how many, the first latents included.

    Returns:
        (num_draws, C, H/8, W/8), float32, on the CPU.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.empty(num_draws, *shape)
    for draw in noise:
        torch.randn((1, *shape), generator=generator, out=draw[None])
    return noise


def make_state(
    request_id: str,
    params: GenerationParams,
    image_index: int,
    journey: Journey,
    *,
    latent_channels: int,
    device: torch.device,
) -> DenoisingState:
    """Make one picture of a request ready for its first step, all but its prompt."""
    seed = params.seeds[image_index]
    shape = (latent_channels, params.height // LIMITS.size_multiple, params.width // LIMITS.size_multiple)
    noise = draw_noise(seed, shape, 1 + sum(journey.draws))
    slots = torch.zeros(journey.num_slots, *shape)
    slots[0] = noise[0] * journey.initial_noise_scale
    return DenoisingState(
        request_id=request_id,
        image_index=image_index,
        seed=seed,
        prompt=params.prompt,
        negative_prompt=params.negative_prompt if params.is_guided else None,
        guidance_scale=_sent(torch.full((1, 1, 1), params.guidance_scale), device),
        num_calls=journey.num_calls,
        timesteps=_sent(journey.timesteps, device),
        input_scales=_sent(journey.input_scales.view(-1, 1, 1, 1), device),
        matrices=_sent(journey.matrices, device),
        draws=journey.draws,
        slots=_sent(slots, device),
        noise=_sent(noise[1:], device),
    )


def _sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on its way to the device. A copy from pageable memory would wait for the steps before it."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
