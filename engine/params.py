"""What may be asked of the engine: `GenerationParams`, its limits, and what a picture costs. No torch."""

from __future__ import annotations

import re
from dataclasses import dataclass

from engine.errors import InvalidParamsError
from engine.samplers import resolve_sampler

__all__ = ["LIMITS", "GenerationParams", "Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest wishes that are granted. Schemas and documentation read them from here."""

    max_prompt_characters: int = 8000
    """Far beyond the 77 tokens that the text encoder reads, and far below what would be costly to tokenize."""
    max_num_inference_steps: int = 150
    max_guidance_scale: int = 30
    min_size: int = 64
    """Pixels, of either side: below 8x8 latents the UNet has nothing left to halve."""
    max_size: int = 2048
    """Pixels, of either side."""
    size_multiple: int = 8
    """Pixels a latent stands for, along each side."""
    max_seed: int = 2**63 - 1
    max_num_images: int = 8


LIMITS = Limits()

# Control characters have no meaning to a text encoder and are a classic way to confuse logs and terminals; lone
# surrogates cannot be written as UTF-8 at all.
_FORBIDDEN_CHARACTER = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationParams:
    """One request for one or more pictures, in diffusers' words.

    Raises:
        InvalidParamsError: a value breaks a rule; the error names field, rule and value.
    """

    prompt: str
    negative_prompt: str = ""
    num_inference_steps: int = 28
    """Denoising steps, 1 to 150. Most samplers call the model once a step."""
    guidance_scale: float = 7.0
    """Classifier-free guidance; 1.0 or less is off, and the negative prompt is then not used."""
    height: int = 512
    """Pixels; a multiple of 8."""
    width: int = 512
    """Pixels; a multiple of 8."""
    seed: int
    """Of the first picture; picture i has seed + i."""
    num_images: int = 1
    sampler: str = "DPMSolver++"
    """A name in `engine.samplers.SAMPLERS`."""
    noise_schedule: str = "karras"
    """A name in `engine.samplers.NOISE_SCHEDULES` that the sampler takes."""
    eta: float | None = None
    """Share of fresh noise in every step, 0 to 1, for DDIM and TCD; None: the sampler's own default."""

    def __post_init__(self) -> None:
        _check_prompt("prompt", self.prompt)
        if not self.prompt.strip():
            raise InvalidParamsError("prompt", "must not be empty", self.prompt)
        _check_prompt("negative_prompt", self.negative_prompt)
        _check_range("num_inference_steps", self.num_inference_steps, 1, LIMITS.max_num_inference_steps)
        _check_range("guidance_scale", self.guidance_scale, 0, LIMITS.max_guidance_scale)
        for name, pixels in (("height", self.height), ("width", self.width)):
            _check_range(name, pixels, LIMITS.min_size, LIMITS.max_size)
            if pixels % LIMITS.size_multiple:
                raise InvalidParamsError(name, f"must be a multiple of {LIMITS.size_multiple}", pixels)
        _check_range("num_images", self.num_images, 1, LIMITS.max_num_images)
        _check_range("seed", self.seed, 0, LIMITS.max_seed - self.num_images + 1)
        sampler, _ = resolve_sampler(self.sampler, self.noise_schedule)
        if self.eta is not None:
            if sampler.default_eta is None:
                raise InvalidParamsError("eta", f"must be left out with the sampler {sampler.name}", self.eta)
            _check_range("eta", self.eta, 0, 1)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each picture, in order."""
        return tuple(range(self.seed, self.seed + self.num_images))

    @property
    def is_guided(self) -> bool:
        """Whether each step needs the negative prompt's prediction too, as in diffusers."""
        return self.guidance_scale > 1.0

    @property
    def rows_per_image(self) -> int:
        """Model rows that one picture takes in every call."""
        return 2 if self.is_guided else 1

    @property
    def model_calls(self) -> int:
        """Model calls of one picture."""
        sampler, _ = resolve_sampler(self.sampler, self.noise_schedule)
        return sampler.model_calls(self.num_inference_steps)

    @property
    def work_units(self) -> float:
        """What the whole request costs; 28 guided steps at 512x512 are 1.0."""
        rows = self.model_calls * self.rows_per_image * self.num_images
        return rows * self.width * self.height / (56 * 512**2)


def _check_prompt(name: str, text: str) -> None:
    if len(text) > LIMITS.max_prompt_characters:
        raise InvalidParamsError(name, f"must have at most {LIMITS.max_prompt_characters} characters", text)
    found = _FORBIDDEN_CHARACTER.search(text)
    if found:
        raise InvalidParamsError(name, "must not contain control characters or lone surrogates", found.group())


def _check_range(name: str, value: float, least: float, most: float) -> None:
    # Written so that NaN, which compares false with everything, is refused.
    if not least <= value <= most:
        raise InvalidParamsError(name, f"must be from {least} to {most}", value)
