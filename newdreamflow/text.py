"""Unicode normalisation of names and searches, so that they compare the same on every database."""

from __future__ import annotations

import unicodedata
from typing import Final

__all__ = ["folded", "has_visible", "scripts_of"]

_BLANK: Final = frozenset("\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Letters and symbols by category, of which nothing is seen."""


def folded(text: str) -> str:
    """Without the difference of case and of ways to encode a character (NFKC_Casefold of Unicode, nearly)."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def has_visible(text: str) -> bool:
    """Whether there is a letter, digit, punctuation mark or symbol in it that can be seen."""
    return any(unicodedata.category(character)[0] in "LNPS" and character not in _BLANK for character in text)


def scripts_of(text: str) -> frozenset[str]:
    """Which of the scripts with look-alike letters (а, a, α) its letters are of."""
    names = (unicodedata.name(character, "").partition(" ")[0] for character in text if character.isalpha())
    return frozenset(names) & {"LATIN", "CYRILLIC", "GREEK"}
