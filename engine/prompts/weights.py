"""Weights of words: `(a:1.2)`, `((a))`, `[a]`, `BREAK` -> pieces and their weights, as A1111 reads them. No torch."""

from __future__ import annotations

import itertools
import re
from typing import Final, NamedTuple

from engine.prompts.errors import PromptError

__all__ = ["MAX_DEPTH", "MAX_WEIGHT", "Piece", "read_weights"]

MAX_WEIGHT: Final = 100.0
"""Far beyond what still gives pictures."""
MAX_DEPTH: Final = 64
"""Open brackets of one kind: each more would cost time for every word in it."""

_UP: Final = 1.1
_DOWN: Final = 1 / 1.1

_TOKEN: Final = re.compile(r"\\[()\[\]\\]?|[()\[\]]|:\s*([+-]?[.\d]+)\s*\)|[^\\()\[\]:]+|:")
_BREAK: Final = re.compile(r"\bBREAK\b")


class Piece(NamedTuple):
    """Text whose words all have one weight."""

    text: str
    weight: float


def read_weights(text: str) -> tuple[tuple[Piece, ...], ...]:
    """Read a text's pieces.

    Returns:
        The parts between `BREAK`s, in order, at least one; each holds its pieces. Neighbours of equal weight are one.

    Raises:
        PromptError: a weight is too large, or brackets are too deep in each other.
    """
    reading = _Reading()
    for match in _TOKEN.finditer(text):
        reading.take(match)
    return reading.finished()


class _Reading:
    """What has been read of a text."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._breaks: list[int] = []
        """How many texts there were before each."""
        self._spans: list[tuple[int, int, float]] = []
        """First text, the one after the last, and what their weights are multiplied by."""
        self._opened: dict[str, list[int]] = {"(": [], "[": []}
        """How many texts there were before each bracket that is still open."""

    def take(self, match: re.Match[str]) -> None:
        """Read on."""
        sign, weight = match.group(), match.group(1)
        if sign[0] == "\\":
            self._texts.append(sign[1:])
        elif sign in self._opened:
            self._opened[sign].append(len(self._texts))
            if len(self._opened[sign]) > MAX_DEPTH:
                raise PromptError(f"must not have brackets more than {MAX_DEPTH} deep")
        elif weight is not None and self._opened["("]:
            number = _number(weight)
            if number is None:
                self._texts.append(sign[:-1])
            self._close("(", _UP if number is None else number)
        elif sign == ")" and self._opened["("]:
            self._close("(", _UP)
        elif sign == "]" and self._opened["["]:
            self._close("[", _DOWN)
        else:
            self._take_text(sign)

    def _close(self, bracket: str, factor: float) -> None:
        self._spans.append((self._opened[bracket].pop(), len(self._texts), factor))

    def _take_text(self, text: str) -> None:
        """Text with breaks in it; spaces at a break belong to it."""
        parts = _BREAK.split(text)
        for index, part in enumerate(parts):
            is_first, is_last = index == 0, index + 1 == len(parts)
            if not is_first:
                self._breaks.append(len(self._texts))
            begun = part if is_first else part.lstrip()
            self._texts.append(begun if is_last else begun.rstrip())

    def finished(self) -> tuple[tuple[Piece, ...], ...]:
        """Everything that was read. A bracket that was never closed goes to the end."""
        unclosed = (("(", _UP), ("[", _DOWN))
        rest = [(begin, len(self._texts), factor) for name, factor in unclosed for begin in self._opened[name]]
        weights = [1.0] * len(self._texts)
        for begin, end, factor in self._spans + rest:
            for index in range(begin, end):
                weights[index] *= factor
        if not all(abs(weight) <= MAX_WEIGHT for weight in weights):
            raise PromptError(f"must weigh no word more than {MAX_WEIGHT:g}")
        bounds = [0, *self._breaks, len(self._texts)]
        return tuple(_merged(self._texts[begin:end], weights[begin:end]) for begin, end in itertools.pairwise(bounds))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _merged(texts: list[str], weights: list[float]) -> tuple[Piece, ...]:
    """Neighbours of equal weight are one text: tokenized as such, too."""
    pieces: list[tuple[list[str], float]] = []
    for text, weight in zip(texts, weights, strict=True):
        if pieces and pieces[-1][1] == weight:
            pieces[-1][0].append(text)
        elif text:
            pieces.append(([text], weight))
    return tuple(Piece("".join(parts), weight) for parts, weight in pieces)
