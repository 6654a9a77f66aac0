"""Prompts that the engine has not read yet. (It remembers texts and diffusers does not: repeats would flatter us.)"""

from __future__ import annotations

__all__ = ["unread"]


def unread(prompt: str, number: int) -> str:
    """The same tokens in another text: one that ends in `number` spaces."""
    return prompt + " " * number
