"""Style presets: words that are added to a prompt."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

__all__ = ["STYLES", "Style", "styled"]


@dataclass(frozen=True, slots=True)
class Style:
    """One preset."""

    label: str
    words: str
    """Added behind the prompt, after a comma."""


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


def styled(prompt: str, style: str) -> str:
    """The prompt as it is sent; a style that is not known any more adds nothing."""
    preset = STYLES.get(style)
    return f"{prompt}, {preset.words}" if preset else prompt
