"""What each function of the networks may be called with, for a backend that compiles it: which lengths may vary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch

from engine.backends.base import Example, Examples
from engine.models.layout import PROMPT_TOKENS
from engine.models.unet_plan import UNetPlan
from engine.networks.unet import UNet

__all__ = ["decoder_examples", "encoder_examples", "text_encoder_examples", "unet_examples"]

ROWS: Final = 2
SIDE: Final = 16
"""Of latents."""
PICTURE_SIDE: Final = 128
"""Pixels: whole latents, whatever one of them stands for."""
CALLS: Final = 28
NUM_SIZES: Final = 6
"""That SDXL is told of a picture."""


def unet_examples(plan: UNetPlan) -> Examples:
    """Of the functions of a `UNet`."""
    functions: dict[str, Callable[[torch.nn.Module], Example]] = {"forward": _forward, "pack_prompt": _pack_prompt}
    if plan.addition == "text":
        functions["add_embedding"] = _pack_prompt
    elif plan.addition == "text_time":
        functions["add_embedding"] = _add_sizes
    return functions | {"pack_guided_time" if plan.guidance_width else "pack_time": _pack_time}


def text_encoder_examples(method: str = "forward") -> Examples:
    """Of one function of a `TextEncoder`."""
    return {method: lambda _: Example((torch.zeros(1, PROMPT_TOKENS, dtype=torch.int64),), ((),))}


def decoder_examples(latent_channels: int) -> Examples:
    """Of the function of an autoencoder that gives pictures."""
    return {"decode": lambda _: Example((torch.zeros(1, latent_channels, SIDE, SIDE),), ((2, 3),))}


def encoder_examples() -> Examples:
    """Of the function of an autoencoder that reads pictures."""
    return {"encode": lambda _: Example((torch.zeros(1, 3, PICTURE_SIDE, PICTURE_SIDE),), ((2, 3),))}


def _forward(unet: torch.nn.Module) -> Example:
    assert isinstance(unet, UNet)  # noqa: S101 - our own mistake
    latents = torch.zeros(ROWS, unet.plan.in_channels, SIDE, SIDE)
    prompt = unet.pack_prompt(_embeds(unet)).expand(ROWS, -1, -1)
    _, *told = _pack_time(unet).inputs
    pack_time = unet.pack_guided_time if unet.plan.guidance_width else unet.pack_time
    time = pack_time(torch.zeros(ROWS), *told)
    return Example((latents, time, prompt), ((0, 2, 3), (0,), (0, 1)))


def _pack_prompt(unet: torch.nn.Module) -> Example:
    assert isinstance(unet, UNet)  # noqa: S101 - our own mistake
    return Example((_embeds(unet),), ((1,),))


def _pack_time(unet: torch.nn.Module) -> Example:
    assert isinstance(unet, UNet)  # noqa: S101 - our own mistake
    widths = [unet.plan.guidance_width, unet.plan.time_width if unet.plan.addition else 0]
    told = [torch.zeros(1, width) for width in widths if width]
    return Example((torch.zeros(CALLS), *told), ((0,), *((),) * len(told)))


def _add_sizes(unet: torch.nn.Module) -> Example:
    assert isinstance(unet, UNet)  # noqa: S101 - our own mistake
    pooled = unet.plan.addition_input - NUM_SIZES * unet.plan.size_width
    return Example((torch.zeros(1, pooled), torch.zeros(1, NUM_SIZES)), ((), ()))


def _embeds(unet: UNet) -> torch.Tensor:
    return torch.zeros(1, PROMPT_TOKENS, unet.plan.text_width)
