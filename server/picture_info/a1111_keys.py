"""AUTOMATIC1111's keys, and the fields of a request that they stand for.

What is written may be less than what a request says: `infotext.py` compares, and adds the rest.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from engine.errors import InvalidParamsError
from engine.limits import LIMITS
from engine.samplers import resolve_sampler
from server.picture_info.fields import JsonValue

__all__ = ["fields_of", "pairs_of"]

_SAMPLERS: Final[Mapping[str, str]] = {"DPMSolver++": "DPM++ 2M", "IPNDM V": "IPNDM_V"}
"""Our name -> A1111's, or Forge's, where they differ."""
_SCHEDULES: Final[Mapping[str, str]] = {
    "karras": "Karras",
    "exponential": "Exponential",
    "beta": "Beta",
    "ays": "Align Your Steps",
}
_UPSCALERS: Final[Mapping[str, str]] = {
    "latent": "Latent",
    "latent-antialiased": "Latent (antialiased)",
    "latent-bicubic": "Latent (bicubic)",
    "latent-nearest": "Latent (nearest)",
    "lanczos": "Lanczos",
}
_SIZE: Final = re.compile(r"(\d{1,5})x(\d{1,5})", re.ASCII)
_WHOLE: Final = re.compile(r"-?\d{1,20}", re.ASCII)
_NUMBER: Final = re.compile(r"-?\d{1,20}(\.\d{0,40})?(e-?\d{1,3})?", re.ASCII)

Reader = Callable[[str], JsonValue]
"""From the text of a value to the value; ValueError if it cannot be."""


def _whole(text: str) -> int:
    if not _WHOLE.fullmatch(text):
        raise ValueError(text)
    return int(text)


def _number(text: str) -> float:
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        raise ValueError(text)
    return float(text)


def _clip_skip(text: str) -> int:
    """A1111 counts from 1."""
    if _whole(text) < 1:
        raise ValueError(text)
    return _whole(text) - 1


def _chosen(choices: Mapping[str, JsonValue]) -> Reader:
    def read(text: str) -> JsonValue:
        if text not in choices:
            raise ValueError(text)
        return choices[text]

    return read


_KEYS: Final[Mapping[str, tuple[str, Reader]]] = {
    "Steps": ("num_inference_steps", _whole),
    "CFG scale": ("guidance_scale", _number),
    "Seed": ("seed", _whole),
    "Denoising strength": ("strength", _number),
    "Variation seed": ("variation_seed", _whole),
    "Variation seed strength": ("variation_strength", _number),
    "Clip skip": ("clip_skip", _clip_skip),
    "Mask blur": ("mask_blur", _whole),
    "Mask mode": ("mask_invert", _chosen({"Inpaint not masked": True})),
    "Inpaint area": ("mask_area", _chosen({"Only masked": "masked", "Whole picture": "whole"})),
    "Masked area padding": ("mask_padding", _whole),
}
"""Key -> field, and how its value is read; written in this order."""
_HIRES_KEYS: Final[Mapping[str, tuple[str, Reader]]] = {
    "Hires upscale": ("scale", _number),
    "Hires steps": ("steps", _whole),
    "Hires upscaler": ("upscaler", _chosen({label: name for name, label in _UPSCALERS.items()})),
    "Hires CFG Scale": ("guidance_scale", _number),
    "Hires prompt": ("prompt", str),
    "Hires negative prompt": ("negative_prompt", str),
}
_LABELS: Final[Mapping[str, Mapping[Any, str]]] = {
    "mask_invert": {True: "Inpaint not masked"},
    "clip_skip": {skipped: str(skipped + 1) for skipped in range(LIMITS.max_clip_skip + 1)},
    "mask_area": {"masked": "Only masked"},
    "upscaler": _UPSCALERS,
}
"""Field -> how its values are written, where it is not as they are."""


def pairs_of(fields: Mapping[str, JsonValue]) -> Iterator[tuple[str, str]]:
    """The keys that A1111 has for a request, in its order, with their values."""
    hires: Mapping[str, JsonValue] = fields.get("hires") or {}
    known = {**fields, "strength": fields.get("strength", hires.get("strength"))}
    yield "Steps", _written(fields["num_inference_steps"])
    yield "Sampler", _SAMPLERS.get(fields["sampler"], fields["sampler"])
    if fields["noise_schedule"] in _SCHEDULES:
        yield "Schedule type", _SCHEDULES[fields["noise_schedule"]]
    yield "CFG scale", _written(fields["guidance_scale"])
    yield "Seed", _written(fields["seed"])
    yield "Size", f"{fields['width']}x{fields['height']}"
    for key, (name, _) in _KEYS.items():
        if key not in {"Steps", "CFG scale", "Seed"} and known.get(name) is not None:
            yield key, _label(name, known[name])
    if hires:
        yield "Hires resize", f"{hires['width']}x{hires['height']}"
        yield from ((key, _label(name, hires[name])) for key, (name, _) in _HIRES_KEYS.items() if name in hires)
        if "sampler" in hires:
            yield "Hires sampler", _SAMPLERS.get(hires["sampler"], hires["sampler"])
            if hires["noise_schedule"] in _SCHEDULES:
                yield "Hires schedule type", _SCHEDULES[hires["noise_schedule"]]


def fields_of(pairs: Mapping[str, str]) -> tuple[dict[str, JsonValue], dict[str, str]]:
    """What A1111's keys say of a request, and those that say nothing that is known here."""
    unknown = dict(pairs)
    fields: dict[str, JsonValue] = {}
    for key, (name, read) in _KEYS.items():
        _take(unknown, key, fields, name, read)
    _take_size(unknown, "Size", fields)
    _take_sampler(unknown, "Sampler", "Schedule type", fields)
    hires: dict[str, JsonValue] = {}
    for key, (name, read) in _HIRES_KEYS.items():
        _take(unknown, key, hires, name, read)
    _take_size(unknown, "Hires resize", hires)
    _take_sampler(unknown, "Hires sampler", "Hires schedule type", hires)
    if "scale" in hires or "width" in hires:
        if "strength" in fields:
            hires["strength"] = fields.pop("strength")
        if hires.get("steps") == 0:  # as many as at first
            hires["steps"] = fields.get("num_inference_steps")
        fields["hires"] = hires
    else:
        unknown |= {key: pairs[key] for key in pairs if key.startswith("Hires ")}
    return fields, {key: unknown[key] for key in pairs if key in unknown}


def _take(unknown: dict[str, str], key: str, fields: dict[str, JsonValue], name: str, read: Reader) -> None:
    if key in unknown:
        try:
            fields[name] = read(unknown[key])
        except ValueError:
            return
        del unknown[key]


def _take_size(unknown: dict[str, str], key: str, fields: dict[str, JsonValue]) -> None:
    found = _SIZE.fullmatch(unknown.get(key, ""))
    if found:
        fields["width"], fields["height"] = int(found[1]), int(found[2])
        del unknown[key]


def _take_sampler(unknown: dict[str, str], key: str, schedule_key: str, fields: dict[str, JsonValue]) -> None:
    """A sampler's label may name its schedule too, as those of A1111 did before 1.9."""
    if key not in unknown:
        return
    try:
        sampler, noise_schedule = resolve_sampler(unknown[key])
    except InvalidParamsError:
        return
    del unknown[key]
    fields["sampler"] = sampler.name
    if noise_schedule != "default":
        fields["noise_schedule"] = noise_schedule
    wanted = next((name for name, label in _SCHEDULES.items() if label == unknown.get(schedule_key)), None)
    if wanted in sampler.noise_schedules:
        fields["noise_schedule"] = wanted
        del unknown[schedule_key]


def _label(name: str, value: JsonValue) -> str:
    return _LABELS[name].get(value, str(value)) if name in _LABELS else _written(value)


def _written(value: JsonValue) -> str:
    """A number as people write it."""
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)
