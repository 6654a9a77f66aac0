"""Style presets: words added to a prompt, in front of a long one, whose end the text encoder may cut off."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

__all__ = ["STYLES", "Style", "picture_of", "styled"]


@dataclass(frozen=True, slots=True)
class Style:
    """One preset."""

    label: str
    words: str
    """At most 24 tokens of the text encoder."""


STYLES: Final = MappingProxyType(
    {
        "digital-art": Style("Digital art", "digital art, clean shapes, vivid colours"),
        "watercolour": Style("Watercolour", "watercolour painting, soft edges, paper texture"),
        "pencil": Style("Pencil drawing", "pencil drawing, fine hatching, white paper"),
        "photo": Style("Photograph", "photograph, natural light, sharp focus"),
        "night": Style("Night", "at night, moonlight, stars"),
        "children": Style("Picture book", "children's book illustration, simple shapes, friendly"),
    }
)
"""Key, as it is stored -> preset."""


def picture_of(style: str) -> str:
    """Static file that shows a style, drawn by `scripts/style_pictures.py`; the empty key has one too."""
    return f"newdreamflow/styles/{style or 'none'}.webp"


_SURELY_READ: Final = 50
"""Bytes without spaces. A token is at least one, and the encoder of SD 1.x reads 75: with a style all fit."""


def styled(prompt: str, style: str) -> str:
    """The prompt as it is sent; a style that is not known any more adds nothing.

    Behind a short prompt, as captions have it; in front of a long one, whose end the text encoder may cut off.
    """
    preset = STYLES.get(style)
    if preset is None:
        return prompt
    is_short = len("".join(prompt.split()).encode()) <= _SURELY_READ
    return f"{prompt}, {preset.words}" if is_short else f"{preset.words}, {prompt}"
