"""Prompt text -> what the network is told of it, each text read once and remembered for a while."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import torch

from engine.models.base import DiffusionModel, EncodedPrompt
from engine.prompts.prompt import Prompt
from engine.transfer import sent

__all__ = ["MAX_REMEMBERED", "MAX_REMEMBERED_BYTES", "Conditioning", "PromptEncoder"]

MAX_REMEMBERED: Final = 64
MAX_REMEMBERED_BYTES: Final = 2**28
"""A text is 4 MB for Stable Diffusion 1.5 in half precision, and 26 MB for XL."""


@dataclass(frozen=True, slots=True, eq=False)
class Conditioning:
    """What one row is told beside its latents, at every step. Shared by all pictures that are told the same."""

    prompt: torch.Tensor
    """(L, K), see `EncodedPrompt.attended`."""
    time: torch.Tensor
    """(N, T), see `DiffusionModel.embed_time`: a row for each model call."""


class PromptEncoder:
    """Reads one text a call, whose shape depends on that text alone, and embeds one picture's timesteps a call.

    Remembers what was used last: up to 64 texts of 256 MiB in all, and as much of timesteps. Pictures that are told the
    same share it.
    """

    def __init__(self, model: DiffusionModel) -> None:
        self._model = model
        self._texts: _Remembered[tuple[Prompt, int], EncodedPrompt] = _Remembered(_num_bytes)
        self._times: _Remembered[Hashable, torch.Tensor] = _Remembered(lambda t: t.nbytes)

    def encode(
        self,
        prompt: Prompt,
        num_chunks: int,
        timesteps: tuple[float, ...],
        size_ids: tuple[int, ...] | None = None,
        guidance_scale: float = 1.0,
    ) -> Conditioning:
        """Read a text for a picture that is drawn along these timesteps.

        Args:
            prompt: the text.
            num_chunks: as long as it is made; see `DiffusionModel.encode_prompt`.
            timesteps: all of them.
            size_ids: see `DiffusionModel.embed_time`.
            guidance_scale: the same.

        Raises:
            torch.OutOfMemoryError: nothing has changed.
        """
        text = self._texts.get((prompt, num_chunks), lambda: self._model.encode_prompt(prompt, num_chunks))
        # Most models are told the same of the time whatever the text.
        info = self._model.info
        sizes = size_ids if info.family.reads_sizes else None
        guidance = guidance_scale if info.embeds_guidance else 1.0
        is_same = text.addition is None and text.pooled is None
        key = (None if is_same else (prompt, num_chunks), timesteps, sizes, guidance)

        def embed() -> torch.Tensor:
            on_device = sent(torch.tensor(timesteps, dtype=torch.float32), info.device)
            return self._model.embed_time(on_device, text, sizes, guidance)

        return Conditioning(text.attended, self._times.get(key, embed))


KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")


class _Remembered(Generic[KeyT, ValueT]):
    """The values used last, within limits of number and memory; the newest always stays."""

    def __init__(self, num_bytes: Callable[[ValueT], int]) -> None:
        self._num_bytes = num_bytes
        self._values: OrderedDict[KeyT, ValueT] = OrderedDict()
        self._total_bytes = 0

    def get(self, key: KeyT, make: Callable[[], ValueT]) -> ValueT:
        """The value; made where it is not remembered."""
        value = self._values.get(key)
        if value is None:
            value = make()
            self._values[key] = value
            self._total_bytes += self._num_bytes(value)
        self._values.move_to_end(key)
        while len(self._values) > MAX_REMEMBERED or (
            len(self._values) > 1 and self._total_bytes > MAX_REMEMBERED_BYTES
        ):
            self._total_bytes -= self._num_bytes(self._values.popitem(last=False)[1])
        return value


def _num_bytes(text: EncodedPrompt) -> int:
    return sum(part.nbytes for part in (text.attended, text.addition, text.pooled) if part is not None)
