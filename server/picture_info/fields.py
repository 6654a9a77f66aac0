"""The fields of a request that draw a picture again, from its parameters: as the HTTP API names them, without pictures.

Pictures that were drawn over are named by their content.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from typing import Any, Final

from engine.params import GenerationParams

__all__ = ["PICTURE_FIELDS", "JsonValue", "request_fields"]

JsonValue = Any
"""What JSON can hold."""

PICTURE_FIELDS: Final = ("image", "mask")
"""Fields that hold a picture; here `{"sha256", "width", "height"}`."""

_ALWAYS: Final = frozenset(
    {
        *("prompt", "negative_prompt", "num_inference_steps", "guidance_scale"),
        *("height", "width", "seed", "sampler", "noise_schedule"),
    }
)
"""Also where they are the usual ones: another server may have other defaults."""
_USUAL: Final[Mapping[str, JsonValue]] = {"prompt_syntax": "weighted"}
"""What a request means that does not say, where a job that does not say is from before there was a choice."""
_MASK_FIELDS: Final[Mapping[str, str]] = {
    "invert": "mask_invert",
    "blur": "mask_blur",
    "area": "mask_area",
    "padding": "mask_padding",
    "content": "masked_content",
}


def request_fields(params: GenerationParams) -> dict[str, JsonValue]:
    """What the request for one picture says. Fields that are as they always are, are left out.

    Args:
        params: of one picture (`GenerationParams.of_image`).
    """
    plain = asdict(params)
    found: dict[str, JsonValue] = {}
    for field in fields(params):
        usual_value = _USUAL.get(field.name, field.default)
        is_usual = usual_value is not MISSING and getattr(params, field.name) == usual_value
        if field.name in _ALWAYS or not is_usual or (field.name == "strength" and params.image is not None):
            found[field.name] = plain[field.name]
    if params.mask is not None:
        found["mask"] = plain["mask"]["image"]
        usual = {field.name: field.default for field in fields(params.mask)}
        found |= {
            asked: plain["mask"][ours] for ours, asked in _MASK_FIELDS.items() if plain["mask"][ours] != usual[ours]
        }
    if params.expand is not None:
        found["expand"] = {side: pixels for side, pixels in plain["expand"].items() if pixels and side != "blur"}
        if params.expand.blur:
            found["mask_blur"] = params.expand.blur
    if params.hires is not None:
        found["hires"] = {name: value for name, value in plain["hires"].items() if value is not None}
    return found
