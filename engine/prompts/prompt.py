"""What a text encoder is given: a text, and how it is to be read. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engine.prompts.weights import Piece, read_weights

__all__ = ["ChosenTexts", "Emphasis", "Prompt", "PromptSyntax"]

PromptSyntax = Literal["plain", "weighted", "dynamic"]
"""How a prompt is read: as it stands, 77 tokens of it; in A1111's language, up to 600 tokens; the same, after choices
and wildcards have been replaced."""

Emphasis = Literal["original", "no_norm", "none"]
"""What a weight does to what the network is told: its chunk keeps its mean; it does not; nothing, brackets are text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenTexts:
    """What the dynamic prompts of one picture have become."""

    prompt: str
    negative_prompt: str = ""
    hires_prompt: str | None = None
    hires_negative_prompt: str | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """One text."""

    text: str
    is_weighted: bool = False
    """Whether it is read in A1111's language; else it is text, and cut after 77 tokens."""
    emphasis: Emphasis = "original"
    clip_skip: int = 0
    """Layers of the text encoder that are left out, from the end."""

    @property
    def parts(self) -> tuple[tuple[Piece, ...], ...]:
        """What stands between `BREAK`s.

        Raises:
            PromptError: it breaks a rule of the language.
        """
        if self.is_weighted and self.emphasis != "none":
            return read_weights(self.text)
        return ((Piece(self.text, 1.0),),)
