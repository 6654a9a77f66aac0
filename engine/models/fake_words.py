"""How the model without weights reads prompts: a token is a word. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.prompts.chunks import CHUNK_TOKENS, Word, cut

if TYPE_CHECKING:
    from engine.prompts.prompt import Prompt

__all__ = ["fake_chunks"]


def fake_chunks(prompt: Prompt) -> list[str]:
    """What is read together, and how words are weighted there."""
    if not prompt.is_weighted:
        return [prompt.text]
    parts = prompt.parts
    weights = {piece.weight for part in parts for piece in part}
    if weights <= {1.0} and len(parts) == 1 and len(prompt.text.split()) <= CHUNK_TOKENS:
        return ["".join(piece.text for piece in parts[0])]
    words = [[Word(0, piece.weight, word) for piece in part for word in piece.text.split()] for part in parts]
    return [f"{prompt.emphasis} {chunk.embeddings} {chunk.weights}" for chunk in cut(words, comma=None)]
