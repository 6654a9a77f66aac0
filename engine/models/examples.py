"""What each function of the networks may be called with, for a backend that compiles it: which lengths may vary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch

from engine.backends.base import Example, Examples
from engine.models.layout import PROMPT_TOKENS
from engine.networks.unet import UNet

__all__ = ["decoder_examples", "encoder_examples", "text_encoder_examples", "unet_examples"]

ROWS: Final = 2
SIDE: Final = 16
"""Of latents."""
PICTURE_SIDE: Final = 128
"""Pixels: whole latents, whatever one of them stands for."""
CALLS: Final = 28


def unet_examples(*, has_text_addition: bool) -> Examples:
    """Of the functions of a `UNet`.

    Args:
        has_text_addition: whether it adds the prompt's vector to the embedding of the timestep.
    """
    functions: dict[str, Callable[[torch.nn.Module], Example]] = {
        "forward": _forward,
        "pack_prompt": _pack_prompt,
        "pack_time": _pack_time_and_text if has_text_addition else _pack_time,
    }
    return functions | ({"add_embedding": _pack_prompt} if has_text_addition else {})


def text_encoder_examples() -> Examples:
    """Of the functions of a `TextEncoder`."""
    return {"forward": lambda _: Example((torch.zeros(1, PROMPT_TOKENS, dtype=torch.int64),), ((),))}


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
    time = unet.pack_time(torch.zeros(ROWS))
    return Example((latents, time, prompt), ((0, 2, 3), (0,), (0, 1)))


def _pack_prompt(unet: torch.nn.Module) -> Example:
    assert isinstance(unet, UNet)  # noqa: S101 - our own mistake
    return Example((_embeds(unet),), ((1,),))


def _pack_time(_: torch.nn.Module) -> Example:
    return Example((torch.zeros(CALLS),), ((0,),))


def _pack_time_and_text(unet: torch.nn.Module) -> Example:
    assert isinstance(unet, UNet)  # noqa: S101 - our own mistake
    return Example((torch.zeros(CALLS), torch.zeros(1, unet.plan.time_width)), ((0,), ()))


def _embeds(unet: UNet) -> torch.Tensor:
    return torch.zeros(1, PROMPT_TOKENS, unet.plan.text_width)
