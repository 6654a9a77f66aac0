"""Limits of the parameters, and how a value beyond one is refused. No torch."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from engine.errors import InvalidParamsError

__all__ = ["LIMITS", "Limits", "check_choice", "check_prompt", "check_range"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the parameters. Schemas and documentation read them from here."""

    max_prompt_characters: int = 8000
    """Far beyond the 77 tokens that the text encoder reads, and far below what would be costly to tokenize."""
    max_clip_skip: int = 11
    """Stable Diffusion 1 has twelve layers."""
    max_num_inference_steps: int = 150
    max_schedule_steps: int = 1000
    """Steps of a noise schedule of which only the last ones are taken: no more than the networks were trained with."""
    max_guidance_scale: int = 30
    min_size: int = 64
    """Pixels, of either side: smaller ones leave a UNet nothing to halve."""
    max_size: int = 2048
    """Pixels, of either side of what is drawn."""
    max_image_size: int = 4096
    """Pixels, of either side of a picture that comes in, or that is enlarged without being drawn."""
    max_image_pixels: int = 2**24
    """Of a picture that comes in."""
    max_seed: int = 2**63 - 1
    max_num_images: int = 64
    max_mask_blur: int = 64
    max_mask_padding: int = 512


LIMITS = Limits()

# Control characters have no meaning to a text encoder and are a classic way to confuse logs and terminals; lone
# surrogates cannot be written as UTF-8 at all.
_FORBIDDEN_CHARACTER = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def check_prompt(name: str, text: str) -> None:
    """Check a prompt's length and characters.

    Raises:
        InvalidParamsError: it breaks a rule.
    """
    if len(text) > LIMITS.max_prompt_characters:
        raise InvalidParamsError(name, f"must have at most {LIMITS.max_prompt_characters} characters", text)
    found = _FORBIDDEN_CHARACTER.search(text)
    if found:
        raise InvalidParamsError(name, "must not contain control characters or lone surrogates", found.group())


def check_range(name: str, value: float, least: float, most: float) -> None:
    """Check that a number lies within its bounds, both included.

    Raises:
        InvalidParamsError: it does not.
    """
    # Written so that NaN, which compares false with everything, is refused.
    if not least <= value <= most:
        raise InvalidParamsError(name, f"must be from {least} to {most}", value)


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Check that a word is one of those there are.

    Raises:
        InvalidParamsError: it is not.
    """
    if value not in choices:
        raise InvalidParamsError(name, f"must be one of {', '.join(choices)}", value)
