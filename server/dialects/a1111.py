"""Errors as AUTOMATIC1111's web UI says them: callers read `detail`. Source: `modules/api/api.py`, version 1.10."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from server.dialects.base import Dialect, Said, renamed
from server.schemas.generation import Problem

__all__ = ["A1111", "is_a1111"]

_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "num_inference_steps": "steps",
        "guidance_scale": "cfg_scale",
        "num_images": "batch_size * n_iter",
        "sampler": "sampler_name",
        "noise_schedule": "scheduler",
        "strength": "denoising_strength",
        "image": "init_images",
        "init_images.0": "init_images",
        "clip_skip": "CLIP_stop_at_last_layers",
        "mask_padding": "inpaint_full_res_padding",
        "variation_seed": "subseed",
        "variation_strength": "subseed_strength",
        "hires.width": "hr_resize_x",
        "hires.height": "hr_resize_y",
        "hires.scale": "hr_scale",
        "hires.steps": "hr_second_pass_steps",
        "hires.sampler": "hr_sampler_name",
        "hires.noise_schedule": "hr_scheduler",
        "hires.strength": "denoising_strength",
        "hires.prompt": "hr_prompt",
        "hires.guidance_scale": "hr_cfg",
    }
)


def is_a1111(path: str) -> bool:
    """Whether a path is one of theirs."""
    return path.startswith(("/sdapi/", "/internal/"))


_SCHEMA: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "type": "object",
        "properties": {name: {"type": "string"} for name in ("error", "detail", "body", "errors")},
        "required": ["error", "detail", "body", "errors"],
    }
)


def _speaks(_method: str, path: str) -> bool:
    return is_a1111(path)


def _say(problem: Problem) -> Said:
    detail, _ = renamed(problem, _NAMES)
    headers = {"WWW-Authenticate": 'Basic realm="API key as password"'} if problem.status == 401 else {}
    content = {"error": "HTTPException", "detail": detail, "body": "", "errors": ""}
    return Said(problem.status, content, headers)


A1111: Final = Dialect("a1111", _speaks, _say, _SCHEMA)
