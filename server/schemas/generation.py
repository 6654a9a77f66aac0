"""The JSON of `/generate`: fields of request and response, and their names in diffusers and the engine."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.choices import with_choices_made
from engine.errors import InvalidParamsError
from engine.params import LIMITS, GenerationParams, SizeIds
from engine.prompts.dynamic import Wildcards, no_wildcards
from engine.prompts.prompt import Emphasis, PromptSyntax
from engine.samplers import resolve_sampler
from server.error_wording import rule_of
from server.picture_info.file_info import ImageMetadata
from server.schemas.picture_request import PictureRequest
from server.store.record import Picture

__all__ = [
    "MAX_NUM_IMAGES",
    "MAX_USER_CHARACTERS",
    "MEDIA_TYPES",
    "Defaults",
    "ForeignRequest",
    "GenerateRequest",
    "GenerateResponse",
    "GeneratedImage",
    "OutputFormat",
    "Problem",
    "ProblemEntry",
]

OutputFormat = Literal["png", "webp", "jpeg"]

MEDIA_TYPES: Mapping[str, OutputFormat] = MappingProxyType({f"image/{name}": name for name in get_args(OutputFormat)})
"""Media type of a picture file -> the `output_format` that asks for it."""

MAX_USER_CHARACTERS = 64

MAX_NUM_IMAGES = 8
"""Pictures of one request to our own API; the engine draws more."""

_T = TypeVar("_T")

_Size = Annotated[int, Field(ge=LIMITS.min_size, le=LIMITS.max_size)]
_SizeId = Annotated[int, Field(ge=0, le=LIMITS.max_image_size)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """Values for fields that a request leaves out, and the one rule that depends on the model."""

    num_inference_steps: int
    guidance_scale: float
    height: int
    width: int
    pixels_per_latent: int
    """Of the model: what every size must be a multiple of."""
    sampler: str
    """A name in `engine.samplers.SAMPLERS`."""
    noise_schedule: str
    prefer_karras: bool
    """Whether a sampler named without a schedule gets Karras noise levels, if it takes them."""
    wildcards: Wildcards = no_wildcards
    """What the names in dynamic prompts stand for."""
    model: str = ""
    """As `GenerationParams.model`."""


class GenerateRequest(PictureRequest):
    """What `POST /generate` asks for. Only the prompt is required; `null` is the same as leaving a field out.

    Strict: a number must be a JSON number, and an integer where one is expected; `"28"`, `28.0` and `true` are refused.
    """

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        use_attribute_docstrings=True,
        json_schema_extra={"examples": [{"prompt": "a cat on a mat, digital art"}]},
    )

    _needs_prompt: ClassVar[bool] = True

    model: str | None = Field(default=None, max_length=100)
    """Which model draws: a name that `GET /v1/models` lists. Left out, the default one."""
    prompt: str = Field(min_length=1, max_length=LIMITS.max_prompt_characters)
    """What to draw, in AUTOMATIC1111's language: see `docs/prompts.md`."""
    negative_prompt: str | None = Field(default=None, max_length=LIMITS.max_prompt_characters)
    """What not to draw. Not used where guidance is off."""
    num_inference_steps: int | None = Field(default=None, ge=1, le=LIMITS.max_num_inference_steps)
    """Denoising steps."""
    guidance_scale: float | None = Field(default=None, ge=0, le=LIMITS.max_guidance_scale, allow_inf_nan=False)
    """How closely to follow the prompt; 1 or less turns guidance off, which is twice as fast."""
    prompt_syntax: PromptSyntax | None = None
    """How the prompts are read: `weighted`, which is meant where this is left out, in AUTOMATIC1111's language;
    `dynamic`, the same with choices and wildcards; `plain`, as they stand, 77 tokens of them."""
    emphasis: Emphasis | None = None
    """What weights of words do: `original` keeps the mean of the embeddings, `no_norm` does not; `none` reads
    brackets as text."""
    clip_skip: int | None = Field(default=None, ge=0, le=LIMITS.max_clip_skip)
    """Layers of the text encoder that are left out, from the end. AUTOMATIC1111 counts from 1."""
    guidance_rescale: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    """How far the contrast that guidance adds is taken back."""
    guidance_start: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    """Share of the steps before which there is no guidance, and each step takes half the time."""
    guidance_end: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    """Share of the steps after which there is none."""
    height: _Size | None = None
    """Pixels; a multiple of the model's `size_multiple`, as `GET /` gives it."""
    width: _Size | None = None
    """Pixels; a multiple of the model's `size_multiple`, as `GET /` gives it."""
    seed: int | None = Field(default=None, ge=0, le=LIMITS.max_seed)
    """The same seed and settings give the same picture. Left out, a random one is used and returned."""
    sampler: str | None = Field(default=None, max_length=100)
    """A sampler's name or alias, as `GET /v1/samplers` lists them."""
    noise_schedule: str | None = Field(default=None, max_length=100)
    """Name of the noise schedule, as `GET /v1/samplers` lists them."""
    eta: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    """Share of fresh noise in every step, for the samplers that take it (DDIM, TCD)."""
    size_ids: Annotated[list[_SizeId], Field(min_length=6, max_length=6)] | None = None
    """What Stable Diffusion XL is given beside the prompt: original height and width, top and left of the crop, target
    height and width. Left out, its own size, whole. Other models do not read them."""
    output_format: OutputFormat | None = None
    """File format. Left out, what `Accept` prefers, else PNG."""
    num_images: int | None = Field(default=None, ge=1, le=MAX_NUM_IMAGES)
    """Pictures to draw, with the seeds `seed`, `seed + 1`, ... More than one are answered as JSON."""
    image_metadata: ImageMetadata | None = None
    """`none` leaves out of the file how the picture was drawn, and that a model drew it; left out, `full`."""
    engine_class: str | None = Field(default=None, pattern="^[0-9a-f]{16}$")
    """Only an engine of this class may draw, as `engine_class` of an earlier job names it: the same bytes again. Left
    out, any. 409 where no engine of the class draws now."""
    user: str | None = Field(default=None, max_length=MAX_USER_CHARACTERS)
    """On whose behalf: any opaque name. Kept out of logs; does not change the picture."""

    @classmethod
    def checked(cls, values: Mapping[str, object]) -> Self:
        """A request from values that do not come as its JSON body.

        Raises:
            InvalidParamsError: a value breaks a rule.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            finding = error.errors()[0]
            raise InvalidParamsError(str(finding["loc"][0]), rule_of(finding), finding["input"]) from None

    def to_params(self, defaults: Defaults) -> GenerationParams:
        """Fill in what was left out; a missing seed is drawn here, below 2**32.

        Raises:
            InvalidParamsError: a value, or a combination of values, that cannot be.
        """
        if self._needs_prompt and not self.prompt.strip():
            raise InvalidParamsError("prompt", "must not be empty", self.prompt)
        sampler, noise_schedule = self._sampler_and_schedule(defaults)
        multiple = defaults.pixels_per_latent
        width, height = self.size(multiple, width=self.width, height=self.height) or (defaults.width, defaults.height)
        width, height = _given(self.width, width), _given(self.height, height)
        num_inference_steps = _given(self.num_inference_steps, defaults.num_inference_steps)
        hires = self.hires
        params = GenerationParams(
            model=defaults.model,
            prompt=self.prompt,
            negative_prompt=self.negative_prompt or "",
            prompt_syntax=_given(self.prompt_syntax, "weighted"),
            emphasis=_given(self.emphasis, "original"),
            clip_skip=_given(self.clip_skip, 0),
            guidance_rescale=_given(self.guidance_rescale, 0.0),
            guidance_start=_given(self.guidance_start, 0.0),
            guidance_end=_given(self.guidance_end, 1.0),
            num_inference_steps=num_inference_steps,
            guidance_scale=_given(self.guidance_scale, defaults.guidance_scale),
            height=height,
            width=width,
            seed=_given(self.seed, secrets.randbelow(2**32)),
            num_images=_given(self.num_images, 1),
            sampler=sampler,
            noise_schedule=noise_schedule,
            eta=self.eta,
            size_ids=None if self.size_ids is None else _six(self.size_ids),
            hires=None
            if hires is None
            else hires.to_hires(width=width, height=height, num_inference_steps=num_inference_steps, multiple=multiple),
            **self.picture_params(),
        )
        params.check_size_multiple(multiple)
        return with_choices_made(params, defaults.wildcards)

    def _sampler_and_schedule(self, defaults: Defaults) -> tuple[str, str]:
        if self.sampler is None and self.noise_schedule is None:
            return defaults.sampler, defaults.noise_schedule
        sampler, noise_schedule = resolve_sampler(
            _given(self.sampler, defaults.sampler), self.noise_schedule, prefer_karras=defaults.prefer_karras
        )
        return sampler.name, noise_schedule


class ForeignRequest(GenerateRequest):
    """A request that came over the API of another program, in our words: it may have no prompt and more pictures."""

    _needs_prompt: ClassVar[bool] = False

    prompt: str = Field(default="", max_length=LIMITS.max_prompt_characters)
    num_images: int | None = Field(default=None, ge=1, le=LIMITS.max_num_images)
    output_quality: int | None = Field(default=None, ge=0, le=100)
    """Of a JPEG or WebP file."""


def _six(numbers: Sequence[int]) -> SizeIds:
    first, second, third, fourth, fifth, sixth = numbers
    return first, second, third, fourth, fifth, sixth


def _given(value: _T | None, default: _T) -> _T:
    return default if value is None else value


class GeneratedImage(BaseModel):
    """One picture of an answer."""

    seed: int
    b64: str
    """The file, in base64."""


class GenerateResponse(BaseModel):
    """The pictures as JSON, with everything needed to draw them again (except the prompt)."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    images: list[GeneratedImage]
    """In the order of their seeds."""
    media_type: str
    """Of the files: `image/png`, `image/webp` or `image/jpeg`."""
    model: str
    sampler: str
    noise_schedule: str
    eta: float | None
    num_inference_steps: int
    guidance_scale: float
    height: int
    width: int
    work_units: float
    """Cost of the request; 28 guided steps at 512x512 are 1.0."""
    prompt_truncated: bool
    """Whether prompt or negative prompt were longer than the text encoder reads."""

    @classmethod
    def of(
        cls, images: Sequence[Picture], params: GenerationParams, model_id: str, *, is_truncated: bool
    ) -> GenerateResponse:
        """The answer for finished pictures."""
        return cls(
            **asdict(params) | {"model": params.model or model_id},
            images=[GeneratedImage(seed=image.seed, b64=base64.b64encode(image.data).decode()) for image in images],
            media_type=images[0].media_type,
            work_units=round(params.work_units, 6),
            prompt_truncated=is_truncated,
        )


class ProblemEntry(BaseModel):
    """One wrong value of a request."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    field: str
    """Its place in the body, parts joined by dots; `body` for the whole body."""
    rule: str
    """The rule that every value must follow, as a phrase after the field's name."""
    value: str | int | float | bool | None
    """The value sent, shortened; for text that could be a prompt or a key only its length."""


class Problem(BaseModel):
    """Every error response, following RFC 9457 (`application/problem+json`)."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    type: str
    """A URI for the kind of problem, made from `code`."""
    title: str
    """The kind of problem, for people."""
    status: int
    detail: str
    """What happened this time."""
    instance: str
    """The path of the request."""
    code: str
    """The kind of problem, for programs."""
    request_id: str
    """The same as the header `X-Request-Id`; the server's log has it too."""
    errors: list[ProblemEntry] | None = None
    """Each wrong value, for 422."""
    retry_after: int | None = None
    """Seconds; the same as the header `Retry-After`."""

    def as_json(self) -> dict[str, Any]:
        """Without the members that do not apply."""
        return {name: value for name, value in self.model_dump().items() if value is not None}
