"""Prompts joined by `AND`: each is told to the network by itself, and what they ask for is added up. No torch."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

__all__ = ["MAX_PARTS", "Part", "split_parts"]

MAX_PARTS: Final = 4
"""Each is a model row more at every step."""

_AND: Final = re.compile(r"\bAND\b")
_WEIGHT: Final = re.compile(r"\s*([-+]?(?:\d+\.?|\d*\.\d+))\s*")


class Part(NamedTuple):
    """One of several prompts, and how much it counts."""

    text: str
    weight: float


def split_parts(prompt: str) -> tuple[Part, ...]:
    """Split a prompt at `AND`; `a AND b:0.5` counts *b* half. At least one part, perhaps more than are served."""
    return tuple(_part(text) for text in _AND.split(prompt))


def _part(text: str) -> Part:
    before, colon, after = text.rpartition(":")
    number = _WEIGHT.fullmatch(after) if colon else None
    return Part(text.rstrip(), 1.0) if number is None else Part(before.rstrip(), float(number.group(1)))
