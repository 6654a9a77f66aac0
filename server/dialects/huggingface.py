"""Errors as Hugging Face's inference API says them: `{"error": "text"}`. Source: huggingface_hub 2.4."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from server.dialects.base import Dialect, Said, renamed
from server.schemas.generation import Problem

__all__ = ["HUGGINGFACE"]

_NAMES: Final[Mapping[str, str]] = MappingProxyType({"sampler": "scheduler", "image": "inputs", "prompt": "inputs"})


_SCHEMA: Final[Mapping[str, Any]] = MappingProxyType(
    {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
)


def _speaks(method: str, path: str) -> bool:
    return path.startswith(("/models/", "/hf-inference/")) or (path == "/" and method not in {"GET", "HEAD"})


def _say(problem: Problem) -> Said:
    error, _ = renamed(problem, _NAMES)
    return Said(400 if problem.status == 422 else problem.status, {"error": error}, {})


HUGGINGFACE: Final = Dialect("huggingface", _speaks, _say, _SCHEMA)
