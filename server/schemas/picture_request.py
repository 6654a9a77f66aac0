"""What a request says of pictures: image to image, masks, outpainting, variations, hires fix; as JSON and as params."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from engine.errors import InvalidParamsError
from engine.params import LIMITS, Expand, Hires, InputImage, MaskWish
from engine.picture_params import HIRES_STRENGTHS, HiresUpscaler, MaskArea, MaskedContent, Resize
from engine.samplers import resolve_sampler
from server.schemas.pictures import Mask, Picture
from server.store.input_files import UploadedPicture

__all__ = ["ExpandRequest", "HiresRequest", "PictureRequest", "input_image"]

_MAX_SCALE = 4
_OUTPAINTING_STRENGTH = 1.0
"""Of a request that lets a picture grow and does not say: there is nothing to keep in what is new."""

_Size = Annotated[int, Field(ge=LIMITS.min_size, le=LIMITS.max_size)]
_Side = Annotated[int, Field(ge=0, le=LIMITS.max_size)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class ExpandRequest(_Part):
    """Pixels by which the picture grows at each side; multiples of the model's `size_multiple`."""

    left: _Side = 0
    top: _Side = 0
    right: _Side = 0
    bottom: _Side = 0


class HiresRequest(_Part):
    """Hires fix: the finished picture is enlarged and drawn on at the larger size."""

    scale: float | None = Field(default=None, ge=1, le=_MAX_SCALE, allow_inf_nan=False)
    """How much larger, rounded down to the model's `size_multiple`; or `width` and `height`."""
    width: _Size | None = None
    height: _Size | None = None
    upscaler: HiresUpscaler = "latent"
    """What enlarges it: the latents in one of four ways, or the pixels (`lanczos`)."""
    steps: int | None = Field(default=None, ge=1, le=LIMITS.max_num_inference_steps)
    """Steps at the larger size; left out, half of `num_inference_steps`."""
    strength: float | None = Field(default=None, gt=0, le=1, allow_inf_nan=False)
    """How much is drawn anew; left out, 0.7, or 0.4 with `lanczos`."""
    prompt: str | None = Field(default=None, min_length=1, max_length=LIMITS.max_prompt_characters)
    """Left out, the request's own, as the fields below."""
    negative_prompt: str | None = Field(default=None, max_length=LIMITS.max_prompt_characters)
    sampler: str | None = Field(default=None, max_length=100)
    noise_schedule: str | None = Field(default=None, max_length=100)
    guidance_scale: float | None = Field(default=None, ge=0, le=LIMITS.max_guidance_scale, allow_inf_nan=False)

    def to_hires(self, *, width: int, height: int, num_inference_steps: int, multiple: int) -> Hires:
        """Fill in what was left out.

        Args:
            width: pixels of the first leg.
            height: the same.
            num_inference_steps: of the first leg.
            multiple: of every size.

        Raises:
            InvalidParamsError: a value, or a combination of values, that cannot be.
        """
        if (self.width is None) != (self.height is None) or (self.scale is None) == (self.width is None):
            rule = "must come alone, or else width and height together"
            raise InvalidParamsError("hires.scale", rule, self.scale)
        sampler, noise_schedule = self._sampler_and_schedule()
        scale = self.scale or 1.0
        return Hires(
            width=self.width or int(width * scale) // multiple * multiple,
            height=self.height or int(height * scale) // multiple * multiple,
            steps=self.steps or math.ceil(num_inference_steps / 2),
            strength=HIRES_STRENGTHS[self.upscaler] if self.strength is None else self.strength,
            upscaler=self.upscaler,
            prompt=self.prompt,
            negative_prompt=self.negative_prompt,
            sampler=sampler,
            noise_schedule=noise_schedule,
            guidance_scale=self.guidance_scale,
        )

    def _sampler_and_schedule(self) -> tuple[str | None, str | None]:
        if self.sampler is None:
            return None, self.noise_schedule  # alone it is refused
        try:
            sampler, noise_schedule = resolve_sampler(self.sampler, self.noise_schedule)
        except InvalidParamsError as error:
            raise InvalidParamsError(f"hires.{error.field}", error.rule, error.value) from None
        return sampler.name, noise_schedule


class PictureRequest(_Part):
    """The fields of a request for pictures that have to do with other pictures."""

    image: Picture | None = None
    """Draw over this picture. A PNG, JPEG or WebP file in base64 or as a `data:` URL, never an address; or a file
    `image` in a form. At most 16 MiB, 4096 pixels wide and high."""
    strength: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    """How much of `image` is drawn anew: the share of the steps that are taken. Left out, 0.75; with `expand`, 1."""
    resize: Resize | None = None
    """How `image` becomes `width` x `height`. Without both, they are those of the image, rounded down."""
    mask: Mask | None = None
    """Change only what is white here. Sent as `image` is, and of its size; read as grey."""
    mask_invert: bool | None = None
    """Change what is black instead."""
    mask_blur: int | None = Field(default=None, ge=0, le=LIMITS.max_mask_blur)
    """Pixels, the standard deviation of a Gaussian: how softly the new part passes into the old one."""
    mask_area: MaskArea | None = None
    """`masked` draws only what surrounds the mask, at `width` x `height`, and puts it back into the picture."""
    mask_padding: int | None = Field(default=None, ge=0, le=LIMITS.max_mask_padding)
    """Pixels around the mask that are drawn with it where `mask_area` is `masked`; left out, 32."""
    masked_content: MaskedContent | None = None
    """What the marked part begins with: what is there, colours of its surroundings, noise, or nothing."""
    expand: ExpandRequest | None = None
    """Let the picture grow. Not together with `mask`."""
    variation_seed: int | None = Field(default=None, ge=0, le=LIMITS.max_seed)
    """Turn the noise towards that of this seed, by `variation_strength`; all pictures then have `seed`."""
    variation_strength: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    """How far towards the noise of `variation_seed`: 0 not at all, 1 the whole way."""
    hires: HiresRequest | None = None
    """Enlarge the finished picture and draw on. Not together with `image`."""

    @property
    def pictures(self) -> tuple[UploadedPicture, ...]:
        """Those that came with the request."""
        return tuple(picture for picture in (self.image, self.mask) if picture is not None)

    def size(self, multiple: int, *, width: int | None, height: int | None) -> tuple[int, int] | None:
        """(width, height) of what is drawn, where the request does not say and has an image to tell.

        Args:
            multiple: pixels that a latent stands for, along each side.
            width: what the request says, which goes before.
            height: the same.

        Raises:
            InvalidParamsError: nothing of this size can be drawn, and the request has no other.
        """
        if self.image is None or self.mask_area == "masked":
            return None
        expand = self.expand or ExpandRequest()
        own_width = self.image.width // multiple * multiple + expand.left + expand.right
        own_height = self.image.height // multiple * multiple + expand.top + expand.bottom
        smallest, largest = LIMITS.min_size, LIMITS.max_size
        for name, given, pixels in (("width", width, own_width), ("height", height, own_height)):
            if given is None and not smallest <= pixels <= largest:
                rule = f"must make a picture with a {name} from {smallest} to {largest}, or come with {name}"
                value = f"{self.image.width}x{self.image.height}"
                raise InvalidParamsError("image" if self.expand is None else "expand", rule, value)
        return own_width, own_height

    def picture_params(self) -> dict[str, Any]:
        """What `GenerationParams` takes of all this, but for the hires fix; what was left out is left to its defaults.

        Raises:
            InvalidParamsError: a value, or a combination of values, that cannot be.
        """
        self._refuse_what_needs_a_mask()
        strength = self.strength
        if strength is None and self.expand is not None:
            strength = _OUTPAINTING_STRENGTH
        wishes = {
            "image": None if self.image is None else input_image(self.image),
            "strength": strength,
            "resize": self.resize,
            "mask": self._mask_wish(),
            "expand": None if self.expand is None else self._growth(self.expand),
            "variation_seed": self.variation_seed,
            "variation_strength": self.variation_strength,
        }
        return {name: value for name, value in wishes.items() if value is not None}

    def _refuse_what_needs_a_mask(self) -> None:
        if self.mask is not None:
            return
        for name in ("mask_invert", "mask_area", "mask_padding", "masked_content"):
            if (value := getattr(self, name)) is not None:
                raise InvalidParamsError(name, "must come with mask", value)
        if self.mask_blur is not None and self.expand is None:
            raise InvalidParamsError("mask_blur", "must come with mask or expand", self.mask_blur)

    def _mask_wish(self) -> MaskWish | None:
        if self.mask is None:
            return None
        wishes = {
            "invert": self.mask_invert,
            "blur": self.mask_blur,
            "area": self.mask_area,
            "padding": self.mask_padding,
            "content": self.masked_content,
        }
        given: dict[str, Any] = {name: value for name, value in wishes.items() if value is not None}
        return MaskWish(image=input_image(self.mask), **given)

    def _growth(self, expand: ExpandRequest) -> Expand:
        return Expand(**expand.model_dump(), blur=self.mask_blur or 0)


def input_image(picture: UploadedPicture) -> InputImage:
    """What the engine is told of an uploaded picture."""
    return InputImage(sha256=picture.sha256, width=picture.width, height=picture.height)
