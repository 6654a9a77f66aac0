"""The JSON of the API: what requests may hold, what answers hold, and the names diffusers and the engine know it by."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.errors import InvalidParamsError
from engine.params import LIMITS, GenerationParams
from engine.samplers import resolve_sampler
from server.executors.messages import ImageReady
from server.phrases import rule_of

__all__ = [
    "MEDIA_TYPES",
    "Defaults",
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

_MAX_USER_CHARACTERS = 64

_T = TypeVar("_T")

_Size = Annotated[int, Field(ge=LIMITS.min_size, le=LIMITS.max_size, multiple_of=LIMITS.size_multiple)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What a request gets that does not say."""

    num_inference_steps: int
    guidance_scale: float
    height: int
    width: int
    sampler: str
    """A name in `engine.samplers.SAMPLERS`."""
    noise_schedule: str
    prefer_karras: bool
    """Whether a sampler named without a schedule gets Karras noise levels, if it takes them."""


class GenerateRequest(BaseModel):
    """What `POST /generate` asks for. Only the prompt is required; `null` is the same as leaving a field out.

    Strict: a number is a JSON number and a whole one where a whole one is meant; `"28"`, `28.0` and `true` are refused.
    """

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        use_attribute_docstrings=True,
        json_schema_extra={"examples": [{"prompt": "a cat on a mat, digital art"}]},
    )

    prompt: str = Field(min_length=1, max_length=LIMITS.max_prompt_characters)
    """What to draw. The text encoder reads 77 tokens; the answer says if it was more."""
    negative_prompt: str | None = Field(default=None, max_length=LIMITS.max_prompt_characters)
    """What not to draw. Not used where guidance is off."""
    num_inference_steps: int | None = Field(default=None, ge=1, le=LIMITS.max_num_inference_steps)
    """Denoising steps."""
    guidance_scale: float | None = Field(default=None, ge=0, le=LIMITS.max_guidance_scale, allow_inf_nan=False)
    """How closely to follow the prompt; 1 or less is off, and then twice as fast."""
    height: _Size | None = None
    """Pixels; a multiple of 8."""
    width: _Size | None = None
    """Pixels; a multiple of 8."""
    seed: int | None = Field(default=None, ge=0, le=LIMITS.max_seed)
    """The same seed and settings give the same picture. Left out, one is drawn, and the answer says which."""
    sampler: str | None = Field(default=None, max_length=100)
    """A sampler's name or alias, as `GET /v1/samplers` lists them."""
    noise_schedule: str | None = Field(default=None, max_length=100)
    """Which noise levels the sampler visits, as `GET /v1/samplers` lists them."""
    eta: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    """Share of fresh noise in every step, for the samplers that take it (DDIM, TCD)."""
    output_format: OutputFormat | None = None
    """File format. Left out, what `Accept` prefers, else PNG."""
    num_images: int | None = Field(default=None, ge=1, le=LIMITS.max_num_images)
    """Pictures to draw, with the seeds `seed`, `seed + 1`, ... More than one are answered as JSON."""
    user: str | None = Field(default=None, max_length=_MAX_USER_CHARACTERS)
    """On whose behalf: any opaque name. Kept out of logs; does not change the picture."""

    @classmethod
    def checked(cls, values: Mapping[str, object]) -> GenerateRequest:
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
        sampler, noise_schedule = self._sampler_and_schedule(defaults)
        return GenerationParams(
            prompt=self.prompt,
            negative_prompt=self.negative_prompt or "",
            num_inference_steps=_given(self.num_inference_steps, defaults.num_inference_steps),
            guidance_scale=_given(self.guidance_scale, defaults.guidance_scale),
            height=_given(self.height, defaults.height),
            width=_given(self.width, defaults.width),
            seed=_given(self.seed, secrets.randbelow(2**32)),
            num_images=_given(self.num_images, 1),
            sampler=sampler,
            noise_schedule=noise_schedule,
            eta=self.eta,
        )

    def _sampler_and_schedule(self, defaults: Defaults) -> tuple[str, str]:
        if self.sampler is None and self.noise_schedule is None:
            return defaults.sampler, defaults.noise_schedule
        sampler, noise_schedule = resolve_sampler(
            _given(self.sampler, defaults.sampler), self.noise_schedule, prefer_karras=defaults.prefer_karras
        )
        return sampler.name, noise_schedule


def _given(value: _T | None, default: _T) -> _T:
    return default if value is None else value


class GeneratedImage(BaseModel):
    """One picture of an answer."""

    seed: int
    b64: str
    """The file, in base64."""


class GenerateResponse(BaseModel):
    """The pictures as JSON, with everything needed to draw them again (but for the prompt)."""

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
    """What the request cost; 28 guided steps at 512x512 are 1.0."""
    prompt_truncated: bool
    """Whether prompt or negative prompt were longer than the text encoder reads."""

    @classmethod
    def of(
        cls, images: Sequence[ImageReady], params: GenerationParams, model_id: str, *, is_truncated: bool
    ) -> GenerateResponse:
        """Tell what was drawn."""
        return cls(
            images=[GeneratedImage(seed=image.seed, b64=base64.b64encode(image.data).decode()) for image in images],
            media_type=images[0].media_type,
            model=model_id,
            sampler=params.sampler,
            noise_schedule=params.noise_schedule,
            eta=params.eta,
            num_inference_steps=params.num_inference_steps,
            guidance_scale=params.guidance_scale,
            height=params.height,
            width=params.width,
            work_units=round(params.work_units, 6),
            prompt_truncated=is_truncated,
        )


class ProblemEntry(BaseModel):
    """One wrong value of a request."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    field: str
    """Where it stands in the body, parts joined by dots; `body` for the whole."""
    rule: str
    """What holds for every legal value, as a phrase after the field's name."""
    value: str | int | float | bool | None
    """What was given, shortened; of text that could be a prompt or a key only the length."""


class Problem(BaseModel):
    """Every error, as RFC 9457 has it (`application/problem+json`)."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    type: str
    """A URI for the kind of problem, made from `code`."""
    title: str
    """The kind of problem, for people."""
    status: int
    detail: str
    """What happened this time."""
    instance: str
    """The path that was asked."""
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
        return self.model_dump(exclude_none=True) if self.errors is None else self._with_errors()

    def _with_errors(self) -> dict[str, Any]:
        entries = [entry.model_dump() for entry in self.errors or []]
        return {**self.model_dump(exclude_none=True, exclude={"errors"}), "errors": entries}
