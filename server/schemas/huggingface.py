"""The JSON of Hugging Face's inference API, and the same request in our words.

Strict about names of parameters: an unknown one may change the picture. Source: huggingface_hub 2.4, `InferenceClient`.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from engine.errors import InvalidParamsError
from engine.params import LIMITS
from server.schemas.generation import ForeignRequest
from server.schemas.pictures import Picture
from server.store.input_files import UploadedPicture

__all__ = ["HubRequest", "is_picture"]

_STRENGTH: Final = 0.8
"""As diffusers' image to image."""
_BASE64_OF_FILES: Final = ("iVBORw0KGgo", "/9j/", "UklGR", "data:image/")
"""How PNG, JPEG and WebP files begin in base64."""

_Size = Annotated[int, Field(ge=LIMITS.min_size, le=LIMITS.max_size)]


class _TargetSize(BaseModel):
    model_config = ConfigDict(extra="forbid")

    width: _Size
    height: _Size


class _Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid")

    prompt: str | None = Field(default=None, max_length=LIMITS.max_prompt_characters)
    negative_prompt: str | None = Field(default=None, max_length=LIMITS.max_prompt_characters)
    height: _Size | None = None
    width: _Size | None = None
    target_size: _TargetSize | None = None
    num_inference_steps: int | None = Field(default=None, ge=1, le=LIMITS.max_num_inference_steps)
    guidance_scale: float | None = Field(default=None, ge=0, le=LIMITS.max_guidance_scale, allow_inf_nan=False)
    scheduler: str | None = Field(default=None, max_length=100)
    noise_schedule: str | None = Field(default=None, max_length=100)
    eta: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    strength: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    seed: int | None = Field(default=None, ge=0, le=LIMITS.max_seed)


class HubRequest(BaseModel):
    """A text to draw, or a picture to draw over."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    inputs: Picture | Annotated[str, Field(max_length=LIMITS.max_prompt_characters)]
    parameters: _Parameters = Field(default_factory=_Parameters)
    options: dict[str, Any] = Field(default_factory=dict)
    """`use_cache`, `wait_for_model`: taken without effect."""

    def wish(self) -> ForeignRequest:
        """The same in our words.

        Raises:
            InvalidParamsError: a combination of values that cannot be.
        """
        asked = self.parameters
        size = asked.target_size
        wishes: dict[str, Any] = {
            "negative_prompt": asked.negative_prompt,
            "width": size.width if size else asked.width,
            "height": size.height if size else asked.height,
            "num_inference_steps": asked.num_inference_steps,
            "guidance_scale": asked.guidance_scale,
            "sampler": asked.scheduler,
            "noise_schedule": asked.noise_schedule,
            "eta": asked.eta,
            "seed": asked.seed,
        }
        if isinstance(self.inputs, UploadedPicture):
            strength = _STRENGTH if asked.strength is None else asked.strength
            wishes |= {"prompt": asked.prompt or "", "image": self.inputs, "strength": strength}
        elif not self.inputs.strip():
            raise InvalidParamsError("inputs", "must not be empty", self.inputs)
        else:
            wishes |= {"prompt": self.inputs}
        return ForeignRequest.checked({name: value for name, value in wishes.items() if value is not None})


def is_picture(values: object) -> bool:
    """Whether `inputs` of a request is a picture in base64: it looks like one, or stands beside a prompt."""
    if not isinstance(values, dict) or not isinstance(values.get("inputs"), str):
        return False
    parameters = values.get("parameters")
    names = parameters.keys() if isinstance(parameters, dict) else ()
    return values["inputs"].lstrip().startswith(_BASE64_OF_FILES) or bool(
        {"prompt", "target_size", "strength"} & {*names}
    )
