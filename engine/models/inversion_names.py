"""The textual inversions of one text encoder: which tokens name them. No torch, no vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from engine.prompts.chunks import Word
from engine.prompts.errors import PromptError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from engine.models.tokenizer import Tokenizer

__all__ = ["InversionNames", "NamedInversion"]


class NamedInversion(NamedTuple):
    """A textual inversion, as a prompt sees it."""

    name: str
    num_vectors: int
    """For this text encoder: as many tokens it counts for."""
    fault: str
    """Why it cannot be used; empty: it can."""


class InversionNames:
    """Finds them in a text. Nothing in it changes."""

    def __init__(self, tokenizer: Tokenizer, inversions: Sequence[NamedInversion]) -> None:
        """Look up what their names are as tokens."""
        self._by_first: dict[int, list[tuple[list[int], NamedInversion]]] = {}
        """Token -> the names that begin with it, the longest first."""
        for inversion in inversions:
            tokens = tokenizer.tokens(inversion.name)[1:-1]
            if tokens:
                self._by_first.setdefault(tokens[0], []).append((tokens, inversion))
        for names in self._by_first.values():
            names.sort(key=lambda entry: len(entry[0]), reverse=True)

    def words(self, tokens: Sequence[int], weight: float) -> Iterator[Word]:
        """What a piece of text is made of, as A1111 reads it: the longest name that stands at a place.

        Raises:
            PromptError: it names one that cannot be used.
        """
        place = 0
        while place < len(tokens):
            names = self._by_first.get(tokens[place], ())
            found = next((entry for entry in names if [*tokens[place : place + len(entry[0])]] == entry[0]), None)
            if found is None:
                yield Word(tokens[place], weight)
                place += 1
                continue
            own, inversion = found
            if inversion.fault:
                raise PromptError(f"must not name the textual inversion {inversion.name}: {inversion.fault}")
            yield Word(0, weight, inversion.name, inversion.num_vectors)
            place += len(own)
