"""Parameters of a request: `GenerationParams`, their limits, and the work units they cost. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, get_args

from engine.errors import InvalidParamsError
from engine.leg import Leg
from engine.limits import LIMITS, Limits, check_choice, check_prompt, check_range
from engine.picture_params import Expand, Hires, InputImage, MaskWish, Resize, SizeIds, Upscaler
from engine.prompts.conjunction import split_parts
from engine.prompts.errors import PromptError
from engine.prompts.plan import Reading
from engine.prompts.prompt import ChosenTexts, Emphasis, PromptSyntax
from engine.samplers import resolve_sampler

__all__ = ["LIMITS", "Expand", "GenerationParams", "Hires", "InputImage", "Limits", "MaskWish", "SizeIds"]

_DEFAULT_STRENGTH: Final = 0.75

_UNIT_ROWS: Final = 56
"""Model rows in a work unit: 28 guided steps."""
_UNIT_PIXELS: Final = 512**2
# Counted with torch's FlopCounterMode on Stable Diffusion 1.5: 1.12 and 2.51 TFLOP, where a model row has 0.80.
_ENCODE_ROWS: Final = 1.4
_DECODE_ROWS: Final = 3.1
_UPSCALE_ROWS: Final = 0.1
"""Next to nothing, but what costs nothing would overtake everybody."""


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
    prompt_syntax: PromptSyntax = "plain"
    """How the prompts are read; see `docs/prompts.md`."""
    emphasis: Emphasis = "original"
    """What weights of words do."""
    clip_skip: int = 0
    """Layers of the text encoder that are left out, from the end. A1111 counts from 1."""
    chosen_texts: tuple[ChosenTexts, ...] | None = None
    """For each picture, what its dynamic prompts have become; set when a request is accepted."""
    guidance_scale: float = 7.0
    """Classifier-free guidance; 1.0 or less is off, and the negative prompt is then not used."""
    guidance_rescale: float = 0.0
    """How far the contrast that guidance adds is taken back, 0 to 1 (Lin et al., 2023)."""
    guidance_start: float = 0.0
    """Share of the model calls before which there is no guidance, and the negative prompt costs nothing."""
    guidance_end: float = 1.0
    """Share of the model calls after which there is none."""
    height: int = 512
    """Pixels; a multiple of what a latent of the model stands for (see `check_size_multiple`)."""
    width: int = 512
    """Pixels; as `height`."""
    seed: int
    """Of the first picture; picture i has seed + i."""
    num_images: int = 1
    sampler: str = "DPMSolver++"
    """A name in `engine.samplers.SAMPLERS`."""
    noise_schedule: str = "karras"
    """A name in `engine.samplers.NOISE_SCHEDULES` that the sampler takes."""
    eta: float | None = None
    """Share of fresh noise in every step, 0 to 1, for DDIM and TCD; None: the sampler's own default."""
    image: InputImage | None = None
    """What is drawn over (*image to image*); None: text alone."""
    strength: float = _DEFAULT_STRENGTH
    """How much of `image` is drawn anew, 0 to 1: the share of the steps that are taken, at least one."""
    resize: Resize = "stretch"
    """How `image` becomes `width` x `height`, where it is not."""
    mask: MaskWish | None = None
    """Which part of `image` is drawn anew (*inpainting*); None: all of it."""
    expand: Expand | None = None
    """By how much `image` grows (*outpainting*). Not together with `mask`, which would hide what is old."""
    variation_seed: int | None = None
    """Of another picture's noise, which the first noise is turned towards. All pictures then have `seed`, and picture i
    has variation_seed + i, as in A1111."""
    variation_strength: float = 0.0
    """How far, 0 to 1: at 1 it is the other noise."""
    hires: Hires | None = None
    """A second leg at a larger size; None: none. Not together with `image`."""
    model: str = ""
    """Which of the server's models draws; empty: its default one."""
    size_ids: SizeIds | None = None
    """What Stable Diffusion XL is told of the picture's sizes; None: its own size, whole. Other models are not told."""
    upscaler: Upscaler | None = None
    """Draw nothing: enlarge `image` to `width` x `height`, up to 4096 each. What concerns drawing is then not read."""

    def __post_init__(self) -> None:
        self._check_texts()
        self._check_numbers()
        sampler, _ = resolve_sampler(self.sampler, self.noise_schedule)
        if self.eta is not None:
            if sampler.default_eta is None:
                raise InvalidParamsError("eta", f"must be left out with the sampler {sampler.name}", self.eta)
            check_range("eta", self.eta, 0, 1)
        self._check_what_needs_an_image()
        self._check_combinations()
        self._check_prompts()

    def _check_texts(self) -> None:
        check_prompt("prompt", self.prompt)
        check_prompt("negative_prompt", self.negative_prompt)
        check_choice("resize", self.resize, get_args(Resize))
        check_choice("prompt_syntax", self.prompt_syntax, get_args(PromptSyntax))
        check_choice("emphasis", self.emphasis, get_args(Emphasis))
        if self.upscaler is not None:
            check_choice("upscaler", self.upscaler, get_args(Upscaler))

    def _check_numbers(self) -> None:
        check_range("num_inference_steps", self.num_inference_steps, 1, LIMITS.max_num_inference_steps)
        check_range("guidance_scale", self.guidance_scale, 0, LIMITS.max_guidance_scale)
        sizes = (1, LIMITS.max_image_size) if self.upscaler else (LIMITS.min_size, LIMITS.max_size)
        check_range("guidance_rescale", self.guidance_rescale, 0, 1)
        check_range("guidance_start", self.guidance_start, 0, 1)
        check_range("guidance_end", self.guidance_end, self.guidance_start, 1)
        check_range("clip_skip", self.clip_skip, 0, LIMITS.max_clip_skip)
        check_range("height", self.height, *sizes)
        check_range("width", self.width, *sizes)
        check_range("num_images", self.num_images, 1, LIMITS.max_num_images)
        check_range("seed", self.seed, 0, LIMITS.max_seed - self.num_images + 1)
        check_range("strength", self.strength, 0, 1)
        check_range("variation_strength", self.variation_strength, 0, 1)
        for pixels in self.size_ids or ():
            check_range("size_ids", pixels, 0, LIMITS.max_image_size)
        if self.variation_seed is not None:
            check_range("variation_seed", self.variation_seed, 0, LIMITS.max_seed - self.num_images + 1)
        elif self.variation_strength:
            raise InvalidParamsError("variation_strength", "must come with variation_seed", self.variation_strength)

    def _check_what_needs_an_image(self) -> None:
        if self.image is None:
            dependent = {
                "strength": self.strength if self.strength != _DEFAULT_STRENGTH else None,
                "resize": self.resize if self.resize != "stretch" else None,
                "mask": None if self.mask is None else _size_of(self.mask.image),
                "expand": None if self.expand is None else list(self.expand.sides.values()),
                "upscaler": self.upscaler,
            }
            for name, value in dependent.items():
                if value is not None:
                    raise InvalidParamsError(name, "must come with image", value)
        elif not int(self.num_inference_steps * self.strength) and self.upscaler is None:
            steps = self.num_inference_steps
            raise InvalidParamsError("strength", f"must leave at least one of {steps} steps", self.strength)

    def _check_combinations(self) -> None:
        image, mask, expand, hires = self.image, self.mask, self.expand, self.hires
        if image is not None and mask is not None and _size_of(mask.image) != _size_of(image):
            raise InvalidParamsError(
                "mask", f"must have the size of the image, {_size_of(image)}", _size_of(mask.image)
            )
        if expand is not None:
            if mask is not None:
                raise InvalidParamsError("expand", "must be left out with a mask", list(expand.sides.values()))
            for name, grown, pixels in (
                ("expand.left", expand.left + expand.right, self.width),
                ("expand.top", expand.top + expand.bottom, self.height),
            ):
                if grown >= pixels:
                    rule = f"must leave room for the image within {pixels} pixels, both sides together"
                    raise InvalidParamsError(name, rule, grown)
        if hires is not None:
            if image is not None:
                raise InvalidParamsError("hires", "must be left out with an image", f"{hires.width}x{hires.height}")
            check_range("hires.width", hires.width, self.width, LIMITS.max_size)
            check_range("hires.height", hires.height, self.height, LIMITS.max_size)
        if self.upscaler is not None:
            self._check_that_nothing_is_drawn(self.upscaler)

    def _check_that_nothing_is_drawn(self, upscaler: Upscaler) -> None:
        for name, value in (("mask", self.mask), ("expand", self.expand)):
            if value is not None:
                raise InvalidParamsError(name, "must be left out with an upscaler", upscaler)
        if self.num_images > 1:
            raise InvalidParamsError("num_images", "must be 1 with an upscaler", self.num_images)

    def _check_prompts(self) -> None:
        """Check that every prompt can be told; those with choices are read when everything is chosen."""
        if self.prompt_syntax == "plain" or (self.prompt_syntax == "dynamic" and self.chosen_texts is None):
            return
        if self.chosen_texts is not None:
            for index in range(self.num_images):
                self.of_image(index)  # checks itself
            return
        for name, leg in zip(("", "hires."), self.legs, strict=False):
            for field, text in (("prompt", leg.prompt), ("negative_prompt", leg.negative_prompt)):
                try:
                    leg.read(text or "", is_negative=field != "prompt")
                except PromptError as error:
                    raise InvalidParamsError(name + field, str(error), text) from None

    def check_size_multiple(self, pixels_per_latent: int) -> None:
        """Check the rules that depend on the model: every size is a whole number of latents.

        Args:
            pixels_per_latent: of the model, along each side.

        Raises:
            InvalidParamsError: one is not.
        """
        # A side by which the picture grows is named before the size that comes of it.
        sizes = {} if self.expand is None else self.expand.sides
        if not self.upscaler:
            sizes |= {"height": self.height, "width": self.width}
        if self.hires is not None:
            sizes |= {"hires.width": self.hires.width, "hires.height": self.hires.height}
        for name, pixels in sizes.items():
            if pixels % pixels_per_latent:
                raise InvalidParamsError(name, f"must be a multiple of {pixels_per_latent}", pixels)
        if self.hires is not None:
            # Both sides times one scale, and each rounded down to whole latents, differ by no more than this.
            error = abs(self.hires.height * self.width - self.hires.width * self.height)
            if error > pixels_per_latent * max(self.width, self.height):
                rule = f"must be as large in proportion to hires.width as {self.height} to {self.width}"
                raise InvalidParamsError("hires.height", rule, self.hires.height)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each picture, in order."""
        if self.variation_strength:
            return (self.seed,) * self.num_images
        return tuple(range(self.seed, self.seed + self.num_images))

    def of_image(self, index: int) -> GenerationParams:
        """The request for one picture of this one alone: the same picture."""
        variation_seed = None if self.variation_seed is None else self.variation_seed + index
        alone = replace(self, seed=self.seeds[index], variation_seed=variation_seed, num_images=1, chosen_texts=None)
        if self.chosen_texts is None:
            return alone
        texts = self.chosen_texts[index]
        hires = self.hires and replace(
            self.hires, prompt=texts.hires_prompt, negative_prompt=texts.hires_negative_prompt
        )
        return replace(
            alone,
            prompt=texts.prompt,
            negative_prompt=texts.negative_prompt,
            hires=hires,
            prompt_syntax="weighted",
        )

    @property
    def inputs(self) -> tuple[InputImage, ...]:
        """The pictures that come with the request, each once."""
        named = (self.image, None if self.mask is None else self.mask.image)
        return tuple({image.sha256: image for image in named if image is not None}.values())

    @property
    def answer_size(self) -> tuple[int, int]:
        """(height, width) of the finished pictures, in pixels."""
        if self.mask is not None and self.mask.area == "masked":
            return self.mask.image.height, self.mask.image.width
        last = self.hires or self
        return last.height, last.width

    @property
    def legs(self) -> tuple[Leg, ...]:
        """What is drawn, one after the other, for each picture."""
        return tuple(self._legs()) if self.chosen_texts is None else self.of_image(0).legs

    def _legs(self) -> Iterator[Leg]:
        if self.upscaler is not None:
            return
        sampler, noise_schedule = resolve_sampler(self.sampler, self.noise_schedule)
        steps = self.num_inference_steps
        taken = steps if self.image is None else min(int(steps * self.strength), steps)
        # diffusers' inpainting starts from noise alone at full strength, its image to image never does.
        is_masked = self.mask is not None or self.expand is not None
        first = Leg(
            start="noise" if self.image is None or (is_masked and self.strength == 1.0) else "image",
            height=self.height,
            width=self.width,
            prompt=self.prompt,
            negative_prompt=self._negative_of(self.prompt, self.negative_prompt, self.guidance_scale),
            reading=Reading(
                syntax=self.prompt_syntax,
                emphasis=self.emphasis,
                clip_skip=self.clip_skip,
                guidance_start=self.guidance_start,
                guidance_end=self.guidance_end,
            ),
            guidance_rescale=self.guidance_rescale,
            guidance_scale=self.guidance_scale,
            sampler=sampler,
            noise_schedule=noise_schedule,
            eta=sampler.default_eta if self.eta is None else self.eta,
            schedule_steps=steps,
            taken_steps=taken,
            size_ids=self.size_ids,
        )
        yield first
        if self.hires is not None:
            yield self._second_leg(first, self.hires)

    def _second_leg(self, first: Leg, hires: Hires) -> Leg:
        sampler, noise_schedule, eta = first.sampler, first.noise_schedule, first.eta
        if hires.sampler is not None:
            sampler, noise_schedule = resolve_sampler(hires.sampler, hires.noise_schedule)
            eta = sampler.default_eta if self.eta is None or sampler.default_eta is None else self.eta
        guidance_scale = first.guidance_scale if hires.guidance_scale is None else hires.guidance_scale
        prompt = hires.prompt or first.prompt
        negative_prompt = self.negative_prompt if hires.negative_prompt is None else hires.negative_prompt
        return replace(
            first,
            start="leg",
            height=hires.height,
            width=hires.width,
            prompt=prompt,
            negative_prompt=self._negative_of(prompt, negative_prompt, guidance_scale),
            guidance_scale=guidance_scale,
            num_steps_before=first.num_steps,
            sampler=sampler,
            noise_schedule=noise_schedule,
            eta=eta,
            schedule_steps=hires.schedule_steps,
            taken_steps=hires.steps,
            size_ids=None,
        )

    def _negative_of(self, prompt: str, negative_prompt: str, guidance_scale: float) -> str | None:
        """What guides away: None where nothing does. A sum of prompts always needs something to differ from."""
        is_sum = self.prompt_syntax != "plain" and len(split_parts(prompt)) > 1
        return negative_prompt if guidance_scale > 1.0 or is_sum else None

    @property
    def texts(self) -> list[str]:
        """What is read: prompt and negative prompt of the first leg, and what a second one has of its own."""
        texts: list[str] = []
        for leg in self.legs:
            own = [text for text in (leg.prompt, leg.negative_prompt) if text is not None]
            texts += own if not texts else [text for text in own if text not in texts]
        return texts

    @property
    def is_guided(self) -> bool:
        """Whether each step needs the negative prompt's prediction too, as in diffusers."""
        return self.guidance_scale > 1.0

    @property
    def rows_per_image(self) -> int:
        """Model rows that one picture takes in every call, at most."""
        return max((leg.num_rows for leg in self.legs), default=1)

    @property
    def model_calls(self) -> int:
        """Model calls of one picture, all its legs together."""
        return sum(leg.model_calls for leg in self.legs)

    def _legs_of_all_images(self) -> Iterator[Leg]:
        if self.chosen_texts is None:
            legs = self.legs
            return (leg for _ in range(self.num_images) for leg in legs)
        return (leg for index in range(self.num_images) for leg in self.of_image(index).legs)

    @property
    def progress_steps(self) -> int:
        """Steps of one picture as its progress counts them: model calls, pictures read, and enlarging without drawing.

        A picture that comes in is read once a request, but counts for every picture.
        """
        return self.model_calls + (self.image is not None) + self.enlarges_pixels

    @property
    def enlarges_pixels(self) -> bool:
        """Whether the first leg's picture is decoded, enlarged and read again."""
        return self.hires is not None and self.hires.upscaler == "lanczos"

    @property
    def work_units(self) -> float:
        """What the whole request costs; 28 guided steps at 512x512 are 1.0. The last decode of a picture is free."""
        if self.upscaler is not None:
            return _UPSCALE_ROWS * self.width * self.height / (_UNIT_ROWS * _UNIT_PIXELS)
        row_pixels = float(sum(leg.model_rows * leg.width * leg.height for leg in self._legs_of_all_images()))
        if self.image is not None:
            row_pixels += _ENCODE_ROWS * self.width * self.height
        if self.hires is not None and self.enlarges_pixels:
            row_pixels += _DECODE_ROWS * self.width * self.height * self.num_images
            row_pixels += _ENCODE_ROWS * self.hires.width * self.hires.height * self.num_images
        return row_pixels / (_UNIT_ROWS * _UNIT_PIXELS)


def _size_of(image: InputImage) -> str:
    return f"{image.width}x{image.height}"
