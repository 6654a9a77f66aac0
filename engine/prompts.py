"""Prompt text -> text embeddings, each text read once and remembered."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import torch

from engine.models.base import DiffusionModel

__all__ = ["PromptEncoder"]

MAX_REMEMBERED: Final = 64


class PromptEncoder:
    """Encodes one text a call, always in the same shape, and keeps the last 64 results (0.2 MB each for SD 1.5)."""

    def __init__(self, model: DiffusionModel) -> None:
        self._model = model
        self._remembered: OrderedDict[str, torch.Tensor] = OrderedDict()

    def encode(self, prompt: str) -> torch.Tensor:
        """(L, D), as `DiffusionModel.encode_prompt` gives it.

        Raises:
            torch.OutOfMemoryError: nothing has changed.
        """
        embeds = self._remembered.get(prompt)
        if embeds is None:
            embeds = self._model.encode_prompt(prompt)
            self._remembered[prompt] = embeds
            if len(self._remembered) > MAX_REMEMBERED:
                self._remembered.popitem(last=False)
        self._remembered.move_to_end(prompt)
        return embeds
