"""Records of a request that has to do with pictures: what comes in, masks, expansion, hires fix. No torch, no pixels.

An error names the field as the HTTP API does: `mask_blur`, `hires.steps`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, get_args

from engine.errors import InvalidParamsError
from engine.limits import LIMITS, check_choice, check_prompt, check_range
from engine.samplers import resolve_sampler

__all__ = [
    "HIRES_STRENGTHS",
    "Expand",
    "Hires",
    "HiresUpscaler",
    "InputImage",
    "MaskArea",
    "MaskWish",
    "MaskedContent",
    "Resize",
    "SizeIds",
    "Upscaler",
]

Resize = Literal["stretch", "crop", "fill"]
"""How a picture of another shape becomes one of `width` x `height`: stretched; scaled until it covers that, and what
stands out cut off; scaled until it fits in, and its edges stretched outwards."""

SizeIds = tuple[int, int, int, int, int, int]
"""Original height and width, top and left of the crop, target height and width, in pixels: what Stable Diffusion XL was
taught of its pictures, and believes of those it draws."""

MaskArea = Literal["whole", "masked"]
"""Drawn at `width` x `height`: the whole picture, or only what surrounds the mask, pasted back into the picture."""

MaskedContent = Literal["original", "fill", "noise", "nothing"]
"""What the marked part holds before it is noised: what is there, colours of the surroundings, noise, or zeros."""

HiresUpscaler = Literal["latent", "latent-antialiased", "latent-bicubic", "latent-nearest", "lanczos"]
"""What enlarges a picture between its two legs: the latents, in one of four ways, or the decoded pixels."""

Upscaler = Literal["lanczos"]
"""What enlarges a picture without drawing."""

HIRES_STRENGTHS: Final[Mapping[HiresUpscaler, float]] = MappingProxyType(
    {upscaler: 0.4 if upscaler == "lanczos" else 0.7 for upscaler in get_args(HiresUpscaler)}
)
"""Each upscaler -> the usual strength. Enlarged latents stay blurry below 0.5, enlarged pixels do not."""

_SHA256: Final = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class InputImage:
    """A picture that comes with a request, by its content: the bytes travel beside the request."""

    sha256: str
    """Of its pixels, its size and its kind, in lower-case hexadecimal: the name of the stored file."""
    width: int
    """Pixels."""
    height: int

    def __post_init__(self) -> None:
        if not _SHA256.fullmatch(self.sha256):
            raise InvalidParamsError("image", "must be named by the SHA-256 of its pixels in hexadecimal", self.sha256)
        for side in (self.width, self.height):
            check_range("image", side, 1, LIMITS.max_image_size)
        if self.width * self.height > LIMITS.max_image_pixels:
            size = f"{self.width}x{self.height}"
            raise InvalidParamsError("image", f"must have at most {LIMITS.max_image_pixels} pixels", size)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskWish:
    """Which part of the picture is drawn anew: white is changed, black is kept."""

    image: InputImage
    """Of the same size as the picture. Read as grey."""
    invert: bool = False
    """Change what is black instead."""
    blur: int = 0
    """Pixels, the standard deviation of a Gaussian: how softly the new part goes over into the old one."""
    area: MaskArea = "whole"
    padding: int = 32
    """Pixels around the mask that are drawn with it, where `area` is `masked`."""
    content: MaskedContent = "original"

    def __post_init__(self) -> None:
        check_range("mask_blur", self.blur, 0, LIMITS.max_mask_blur)
        check_choice("mask_area", self.area, get_args(MaskArea))
        check_range("mask_padding", self.padding, 0, LIMITS.max_mask_padding)
        check_choice("masked_content", self.content, get_args(MaskedContent))


@dataclass(frozen=True, slots=True, kw_only=True)
class Expand:
    """Pixels by which the picture grows at each side (*outpainting*). They are part of `width` and `height`."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0
    blur: int = 0
    """As of a mask. The new part then reaches into the old one, by twice as many pixels."""

    def __post_init__(self) -> None:
        check_range("mask_blur", self.blur, 0, LIMITS.max_mask_blur)
        for name, pixels in self.sides.items():
            check_range(name, pixels, 0, LIMITS.max_size)
        if not any(self.sides.values()):
            raise InvalidParamsError("expand", "must let the picture grow at one side at least", 0)

    @property
    def sides(self) -> dict[str, int]:
        """Path of the field -> pixels."""
        return {
            "expand.left": self.left,
            "expand.top": self.top,
            "expand.right": self.right,
            "expand.bottom": self.bottom,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Hires:
    """Hires fix: the finished picture is enlarged, noised and drawn on at the larger size."""

    width: int
    """Pixels of the finished picture; as wide in proportion to its height as the first one."""
    height: int
    steps: int
    """Denoising steps that are taken at the larger size, whatever the strength. Usual: half of the first ones."""
    strength: float
    """How much of the enlarged picture is drawn anew, more than 0 to 1. Usual: `HIRES_STRENGTHS`."""
    upscaler: HiresUpscaler = "latent"
    prompt: str | None = None
    """None: that of the request; as the fields below."""
    negative_prompt: str | None = None
    sampler: str | None = None
    noise_schedule: str | None = None
    """Given with a sampler, and left out without one."""
    guidance_scale: float | None = None

    def __post_init__(self) -> None:
        for name, pixels in (("hires.width", self.width), ("hires.height", self.height)):
            check_range(name, pixels, LIMITS.min_size, LIMITS.max_size)
        check_range("hires.steps", self.steps, 1, LIMITS.max_num_inference_steps)
        check_choice("hires.upscaler", self.upscaler, get_args(HiresUpscaler))
        check_range("hires.strength", self.strength, self.steps / LIMITS.max_schedule_steps, 1)
        if self.prompt is not None:
            check_prompt("hires.prompt", self.prompt)
        if self.negative_prompt is not None:
            check_prompt("hires.negative_prompt", self.negative_prompt)
        if self.guidance_scale is not None:
            check_range("hires.guidance_scale", self.guidance_scale, 0, LIMITS.max_guidance_scale)
        if (self.sampler is None) != (self.noise_schedule is None):
            raise InvalidParamsError("hires.noise_schedule", "must come with hires.sampler", self.noise_schedule)
        if self.sampler is not None:
            try:
                resolve_sampler(self.sampler, self.noise_schedule)
            except InvalidParamsError as error:
                raise InvalidParamsError(f"hires.{error.field}", error.rule, error.value) from None

    @property
    def schedule_steps(self) -> int:
        """Steps of the noise schedule, of which the last `steps` are taken; A1111's arithmetic."""
        return int(self.steps / min(self.strength, 0.999))
