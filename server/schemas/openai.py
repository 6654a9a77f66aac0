"""The JSON and the forms of OpenAI's Images API, and the same request in our words.

Strict about names: a field that is not known is refused, since it may change the picture. Values may be text, as forms
have them. Source: openai-openapi of 2026-08, `CreateImageRequest` and its siblings.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from engine.errors import InvalidParamsError
from engine.params import LIMITS
from server.errors import ModelNameError
from server.schemas.generation import MAX_USER_CHARACTERS, ForeignRequest, OutputFormat
from server.schemas.pictures import Picture, TransparentMask

__all__ = [
    "EditRequest",
    "ImageEntry",
    "ImagesRequest",
    "ImagesResponse",
    "ModelEntry",
    "ModelList",
    "VariationRequest",
    "check_model",
]

_MAX_N: Final = 10
_SIZE: Final = re.compile(r"(\d{1,5})x(\d{1,5})")
_ALIASES: Final = re.compile(r"(dall-e|gpt-image|chatgpt-image)-[a-z0-9.-]{1,40}")
"""Names that many programs have built in: they mean the model that is served."""
_URL_BY_DEFAULT: Final = re.compile(r"dall-e-.*")

_EDIT_STRENGTH: Final = 0.8
_MASK_STRENGTH: Final = 1.0
_VARIATION_STRENGTH: Final = 0.6

_Text = Annotated[str, Field(max_length=LIMITS.max_prompt_characters)]


class _Request(BaseModel):
    """What all three requests have. `null` is the same as leaving a field out."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    model: str | None = Field(default=None, max_length=200)
    """The served model's name, or any `dall-e-*`, `gpt-image-*` or `chatgpt-image-*`, which mean the same."""
    n: int | None = Field(default=None, ge=1, le=_MAX_N)
    """Pictures, with the seeds `seed`, `seed + 1`, ..."""
    size: str | None = Field(default=None, max_length=20)
    """`WIDTHxHEIGHT`, or `auto`: the server's default, or the picture's own size."""
    response_format: Literal["url", "b64_json"] | None = None
    """Left out, `url` for `dall-e-*` or no model, else `b64_json`."""
    user: str | None = Field(default=None, max_length=MAX_USER_CHARACTERS)
    safety_identifier: str | None = Field(default=None, max_length=MAX_USER_CHARACTERS)
    """The newer name of `user`."""
    output_format: OutputFormat | None = None
    negative_prompt: _Text | None = None
    """Not OpenAI's: see `POST /generate`, as for the fields below."""
    seed: int | None = Field(default=None, ge=0, le=LIMITS.max_seed)
    num_inference_steps: int | None = Field(default=None, ge=1, le=LIMITS.max_num_inference_steps)
    steps: int | None = Field(default=None, ge=1, le=LIMITS.max_num_inference_steps)
    """Another name of `num_inference_steps`."""
    guidance_scale: float | None = Field(default=None, ge=0, le=LIMITS.max_guidance_scale, allow_inf_nan=False)
    sampler: str | None = Field(default=None, max_length=100)
    noise_schedule: str | None = Field(default=None, max_length=100)
    eta: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)

    @property
    def sends_urls(self) -> bool:
        """Whether the answer has addresses of pictures, else the pictures."""
        if self.response_format is not None:
            return self.response_format == "url"
        return not self.model or _URL_BY_DEFAULT.fullmatch(self.model) is not None

    def _wish(self, **changes: object) -> ForeignRequest:
        if self.steps is not None and self.num_inference_steps not in {None, self.steps}:
            raise InvalidParamsError("steps", "must agree with num_inference_steps or be left out", self.steps)
        width, height = _width_and_height(self.size)
        wishes = {
            "num_images": self.n,
            "width": width,
            "height": height,
            "user": self.safety_identifier or self.user,
            "output_format": self.output_format,
            "negative_prompt": self.negative_prompt,
            "seed": self.seed,
            "num_inference_steps": self.num_inference_steps or self.steps,
            "guidance_scale": self.guidance_scale,
            "sampler": self.sampler,
            "noise_schedule": self.noise_schedule,
            "eta": self.eta,
            **changes,
        }
        return ForeignRequest.model_validate({name: value for name, value in wishes.items() if value is not None})


class ImagesRequest(_Request):
    """`POST /v1/images/generations`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"prompt": "a cat on a mat", "model": "gpt-image-1"}]})

    prompt: str = Field(min_length=1, max_length=LIMITS.max_prompt_characters)
    stream: bool | None = None
    """Answer with server-sent events: `partial_images` previews, then the pictures."""
    partial_images: int | None = Field(default=None, ge=0, le=3)
    quality: Literal["standard", "hd", "low", "medium", "high", "xhigh", "max", "auto"] | None = None
    """Taken without effect, as the fields below: this server has no such switch."""
    style: Literal["vivid", "natural"] | None = None
    moderation: Literal["low", "auto"] | None = None
    complexity: Literal["low", "medium", "high", "auto"] | None = None
    input_fidelity: Literal["low", "high"] | None = None
    background: Literal["opaque", "auto"] | None = None
    output_compression: int | None = Field(default=None, ge=0, le=100)
    """Quality of a JPEG or WebP file, 100 the best; left out, 95. Not for PNG."""

    def _quality(self) -> dict[str, int]:
        """As OpenAI has it: PNG loses nothing, and takes 100 only."""
        if self.output_compression is None:
            return {}
        if self.output_format in {None, "png"}:
            if self.output_compression != 100:
                rule = "must be 100 or left out where output_format is png"
                raise InvalidParamsError("output_compression", rule, self.output_compression)
            return {}
        return {"output_quality": self.output_compression}

    def wish(self) -> ForeignRequest:
        """The same in our words.

        Raises:
            InvalidParamsError: a combination of values that cannot be.
        """
        return self._wish(prompt=_prompt(self.prompt), **self._quality())


class _ImageReference(BaseModel):
    model_config = ConfigDict(extra="forbid")

    image_url: Picture
    """A `data:` URL; addresses are not fetched."""


class _MaskReference(BaseModel):
    model_config = ConfigDict(extra="forbid")

    image_url: TransparentMask


class EditRequest(ImagesRequest):
    """`POST /v1/images/edits`, as a form (`image` or `image[]`, `mask`) or as JSON (`images`, `mask`)."""

    model_config = ConfigDict(json_schema_extra={"examples": []})

    image: Picture | None = None
    images: list[_ImageReference] | None = Field(default=None, max_length=1)
    mask: TransparentMask | _MaskReference | None = None
    """Transparent where the picture is to change; of its size."""
    strength: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    """How much is drawn anew: left out, 1 with a mask, else 0.8."""

    def wish(self) -> ForeignRequest:
        """The same in our words.

        Raises:
            InvalidParamsError: a combination of values that cannot be.
        """
        named = [entry.image_url for entry in self.images or ()]
        pictures = [*named, *([self.image] if self.image is not None else ())]
        if len(pictures) != 1:
            raise InvalidParamsError("image", "must be one picture", len(pictures))
        mask = self.mask.image_url if isinstance(self.mask, _MaskReference) else self.mask
        strength = self.strength
        if strength is None:
            strength = _EDIT_STRENGTH if mask is None else _MASK_STRENGTH
        blur: dict[str, Any] = {} if mask is None else {"mask_blur": 0}
        return self._wish(
            prompt=_prompt(self.prompt), image=pictures[0], mask=mask, strength=strength, **blur, **self._quality()
        )


class VariationRequest(_Request):
    """`POST /v1/images/variations`, as a form."""

    image: Picture
    strength: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    """How much is drawn anew; left out, 0.6."""

    def wish(self) -> ForeignRequest:
        """The same in our words.

        Raises:
            InvalidParamsError: a combination of values that cannot be.
        """
        strength = _VARIATION_STRENGTH if self.strength is None else self.strength
        return self._wish(image=self.image, strength=strength)


class ImageEntry(BaseModel):
    """One picture of an answer; exactly one of the two is there."""

    b64_json: str | None = None
    url: str | None = None


class ImagesResponse(BaseModel):
    """The pictures."""

    created: int
    data: list[ImageEntry]
    output_format: str
    size: str
    quality: str = "auto"
    background: str = "opaque"


class ModelEntry(BaseModel):
    """A model, or another name of it."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "semantic-bit"
    family: str
    """Ours from here on: the kind of model."""
    is_default: bool
    """Whether it draws what names no model."""
    width: int
    """Pixels of a picture where a request does not say; as the fields below."""
    height: int
    size_multiple: int
    """What width and height must be multiples of."""
    num_inference_steps: int
    guidance_scale: float
    sampler: str
    noise_schedule: str
    embeddings: list[str]
    """Textual inversions that a prompt may name."""


class ModelList(BaseModel):
    """Every name that may be asked for."""

    object: Literal["list"] = "list"
    data: list[ModelEntry]


def check_model(name: str | None, served: str, others: Collection[str] = ()) -> None:
    """Refuse a name that is neither a model's nor one of those that mean whatever is served.

    Raises:
        ModelNameError: it is neither.
    """
    if name and name not in {served, served.rpartition("/")[2], *others} and not _ALIASES.fullmatch(name):
        names = ", ".join((served, *sorted({*others} - {served})))
        raise ModelNameError(f"must be one of {names} (or a dall-e-* or gpt-image-* name)", field="model")


def _prompt(prompt: str) -> str:
    if not prompt.strip():
        raise InvalidParamsError("prompt", "must not be empty", prompt)
    return prompt


def _width_and_height(size: str | None) -> tuple[int | None, int | None]:
    if size in {None, "", "auto"}:
        return None, None
    found = _SIZE.fullmatch(size or "")
    if found is None:
        raise InvalidParamsError("size", "must be WIDTHxHEIGHT or auto", size)
    width, height = int(found[1]), int(found[2])
    for pixels in (width, height):
        if not LIMITS.min_size <= pixels <= LIMITS.max_size:
            rule = f"must have sides from {LIMITS.min_size} to {LIMITS.max_size} pixels"
            raise InvalidParamsError("size", rule, size)
    return width, height
