"""The textual inversions of one text encoder: which tokens name them, and the vectors that stand there instead."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from engine.prompts.chunks import Word
from engine.prompts.errors import PromptError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from engine.models.textual_inversions import TextualInversion
    from engine.models.tokenizer import Tokenizer

__all__ = ["InvertedWords", "LoadedInversion", "load_inversions"]

logger = logging.getLogger(__name__)


class LoadedInversion(NamedTuple):
    """A textual inversion for a model."""

    name: str
    vectors: tuple[torch.Tensor, ...]
    """(v, D) for each of its text encoders, float32, on the CPU; none where it cannot be used."""
    fault: str
    """Why it cannot be used; empty: it can."""


def load_inversions(inversions: Sequence[TextualInversion], widths: Sequence[int]) -> tuple[LoadedInversion, ...]:
    """Read vectors into memory. What cannot be used is logged, and refused where a prompt names it.

    Args:
        inversions: the files.
        widths: D of each of the model's text encoders.
    """
    loaded = []
    for inversion in inversions:
        fault = inversion.fault_with(widths)
        vectors: tuple[torch.Tensor, ...] = ()
        if not fault:
            vectors, fault = _vectors(inversion)
        if fault:
            logger.warning("a textual inversion cannot be used: %s: %s", inversion.name, fault)
        loaded.append(LoadedInversion(inversion.name, vectors, fault))
    return tuple(loaded)


class InvertedWords:
    """Finds them in a text. Nothing in it changes."""

    def __init__(self, tokenizer: Tokenizer, inversions: Sequence[LoadedInversion], encoder: int) -> None:
        """Look up what their names are as tokens.

        Args:
            tokenizer: of the text encoder.
            inversions: of the model.
            encoder: which of its text encoders, from 0.
        """
        self._encoder = encoder
        self._inversions = {inversion.name: inversion for inversion in inversions}
        self._by_first: dict[int, list[tuple[list[int], LoadedInversion]]] = {}
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
            yield Word(0, weight, inversion.name, len(inversion.vectors[self._encoder]))
            place += len(own)

    def vectors(self, name: str) -> torch.Tensor:
        """(v, D), float32, on the CPU."""
        return self._inversions[name].vectors[self._encoder]


def _vectors(inversion: TextualInversion) -> tuple[tuple[torch.Tensor, ...], str]:
    """Those of a file, and what is wrong with it."""
    try:
        with safe_open(inversion.path, framework="pt", device="cpu") as file:
            # Copies: a tensor left in the mapping would change when somebody overwrites the file.
            vectors = tuple(
                file.get_tensor(name).to(torch.float32, copy=True).reshape(-1, width)
                for name, width in zip(inversion.tensors, inversion.widths, strict=True)
            )
    except (SafetensorError, OSError, RuntimeError):
        return (), "it is damaged, or not readable"
    if any(len(part) != inversion.num_vectors for part in vectors):
        return (), "it has changed since it was listed"
    if not all(bool(part.isfinite().all()) for part in vectors):
        return (), "it holds numbers that are not finite"
    return vectors, ""
