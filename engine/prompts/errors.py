"""What goes wrong with a prompt itself. No torch."""

from __future__ import annotations

__all__ = ["PromptError"]


class PromptError(ValueError):
    """A prompt breaks a rule, which the message names: `must weigh no word ...`. The caller knows which field."""
