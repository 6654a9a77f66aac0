"""Chunks: a text of any length -> runs of 75 tokens, as A1111 cuts it. No torch.

A text encoder reads 77 tokens, the first and the last of which are marks. A longer text is read chunk by chunk, and
what the encoder makes of them stands one after the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

__all__ = ["CHUNK_TOKENS", "COMMA_REACH", "MAX_CHUNKS", "Chunk", "Word", "cut"]

CHUNK_TOKENS: Final = 75
MAX_CHUNKS: Final = 8
COMMA_REACH: Final = 20
"""Tokens: where a chunk ends so soon after a comma, what follows the comma moves to the next one."""


class Word(NamedTuple):
    """What is never divided: a token, or the vectors of one textual inversion."""

    token: int
    weight: float
    embedding: str | None = None
    """The textual inversion that it stands for; `token` then only keeps the place."""
    num_tokens: int = 1


@dataclass(slots=True)
class Chunk:
    """At most 75 tokens. Padding is not part of it."""

    tokens: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    embeddings: list[tuple[int, str]] = field(default_factory=list)
    """(place of its first vector in `tokens`, name) of each textual inversion."""

    def add(self, word: Word) -> None:
        """Append a word that there is room for."""
        if word.embedding is not None:
            self.embeddings.append((len(self.tokens), word.embedding))
        self.tokens += [word.token] * word.num_tokens
        self.weights += [word.weight] * word.num_tokens

    def split(self, place: int) -> Chunk:
        """Cut off what stands at `place` and behind it."""
        rest = Chunk(
            self.tokens[place:],
            self.weights[place:],
            [(at - place, name) for at, name in self.embeddings if at >= place],
        )
        del self.tokens[place:], self.weights[place:]
        self.embeddings = [(at, name) for at, name in self.embeddings if at < place]
        return rest


def cut(parts: Iterable[Sequence[Word]], comma: int | None) -> list[Chunk]:
    """Cut a text into chunks.

    Args:
        parts: what stands between `BREAK`s; each begins a chunk.
        comma: the token of a comma that ends a word; None: there is none.

    Returns:
        At least one chunk.
    """
    chunks: list[Chunk] = []
    chunk = Chunk()
    for index, words in enumerate(parts):
        if index:
            chunks.append(chunk)
            chunk = Chunk()
        after_comma: int | None = None
        for word in words:
            if word.token == comma and word.embedding is None:
                after_comma = len(chunk.tokens) + 1
            elif len(chunk.tokens) == CHUNK_TOKENS and after_comma and CHUNK_TOKENS - after_comma < COMMA_REACH:
                rest = chunk.split(after_comma)
                chunks.append(chunk)
                chunk, after_comma = rest, None
            if len(chunk.tokens) + word.num_tokens > CHUNK_TOKENS:
                chunks.append(chunk)
                chunk, after_comma = Chunk(), None
            chunk.add(word)
    return [*chunks, chunk] if chunk.tokens or not chunks else chunks
