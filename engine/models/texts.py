"""Reads prompts with a model's text encoders: chunk by chunk, and with weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import torch

from engine.backends.base import Function
from engine.models.inversion_names import NamedInversion
from engine.models.inverted_words import LoadedInversion
from engine.models.layout import PROMPT_TOKENS
from engine.models.prompt_cutter import PromptCutter
from engine.models.tokenizer import Tokenizer
from engine.networks.clip import TextEncoder
from engine.prompts.chunks import Chunk
from engine.prompts.prompt import Prompt
from engine.transfer import sent

__all__ = ["ReadText", "TextReader"]

_ROUNDING: Final = 1e-6
"""Of the numbers' usual size: a mean that is no further from 0."""


class ReadText(NamedTuple):
    """A text as one encoder understands it."""

    embeds: torch.Tensor
    """(1, 77 k, D)."""
    pooled: torch.Tensor
    """(1, P), of its first chunk; P = 0 where the encoder's pooled vector is not asked for."""


class TextReader:
    """One text encoder and its tokenizer."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        encode: Function,
        *,
        width: int,
        num_layers: int,
        device: torch.device,
        is_for_xl: bool,
        load: Callable[[], torch.nn.Module],
        inversions: Sequence[LoadedInversion] = (),
        encoder: int = 0,
    ) -> None:
        """Put it together.

        Args:
            tokenizer: text -> tokens.
            encode: `TextEncoder.forward`, or `TextEncoder.encode_for_xl` where there are two.
            width: D.
            num_layers: of the encoder.
            device: where `encode` runs.
            is_for_xl: whether it is the latter.
            load: gives the encoder itself, for what is asked for so seldom that no backend compiles it.
            inversions: textual inversions that prompts may name.
            encoder: which of the model's encoders it is, from 0.
        """
        self._tokenizer = tokenizer
        self._encode = encode
        self._width = width
        names = [
            NamedInversion(inversion.name, 0 if inversion.fault else len(inversion.vectors[encoder]), inversion.fault)
            for inversion in inversions
        ]
        self._cutter = PromptCutter(tokenizer, num_layers, names)
        self._device = device
        self._is_for_xl = is_for_xl
        self._load = load
        self._loaded: TextEncoder | None = None
        self._vectors = {one.name: one.vectors[encoder] for one in inversions if not one.fault}
        """Name -> (v, D), float32, on the CPU."""

    @property
    def cutter(self) -> PromptCutter:
        """What cuts a prompt. Any thread may use it."""
        return self._cutter

    def read(self, prompt: Prompt, num_chunks: int) -> ReadText:
        """Read a prompt; empty chunks follow where it has fewer."""
        if not prompt.is_weighted:
            return self._encoded(self._tokenizer.padded(self._tokenizer.tokens(prompt.text)), prompt.clip_skip)
        chunks = [*self._cutter.chunks(prompt), *[Chunk()] * num_chunks][:num_chunks]
        read = [
            self._encoded(self._tokenizer.marked(chunk.tokens), prompt.clip_skip, chunk.embeddings) for chunk in chunks
        ]
        weighted = [
            _weighted(text.embeds, chunk.weights, keeps_mean=prompt.emphasis == "original")
            for text, chunk in zip(read, chunks, strict=True)
        ]
        return ReadText(torch.cat(weighted, dim=1), read[0].pooled)

    def _encoded(self, tokens: Sequence[int], num_skipped: int, inverted: Sequence[tuple[int, str]] = ()) -> ReadText:
        ids = sent(torch.tensor([tokens]), self._device)
        is_usual = not num_skipped and not inverted
        encoded = (self._encode(ids) if is_usual else self._by_module(ids, num_skipped, inverted)).flatten(1)
        length = PROMPT_TOKENS * self._width
        return ReadText(encoded[:, :length].view(1, PROMPT_TOKENS, self._width), encoded[:, length:])

    def _by_module(self, ids: torch.Tensor, num_skipped: int, inverted: Sequence[tuple[int, str]]) -> torch.Tensor:
        if self._loaded is None:
            encoder = self._load()
            assert isinstance(encoder, TextEncoder)  # noqa: S101 - our own mistake
            self._loaded = encoder
        # The start token stands before a chunk's first one.
        placed = [(1 + place, sent(self._vectors[name], self._device)) for place, name in inverted]
        encoding = self._loaded.encode(ids, num_skipped, placed)
        return TextEncoder.joined(encoding) if self._is_for_xl else encoding.last


def _weighted(embeds: torch.Tensor, weights: Sequence[float], *, keeps_mean: bool) -> torch.Tensor:
    """(1, 77, D): a chunk whose tokens count differently; as it is where all count the same.

    A1111's arithmetic, in float32: the mean of all numbers stays as it was. Unless that is 0, as in networks that were
    never trained: the quotient of two rounding errors would be anything, or not finite.
    """
    if all(weight == 1.0 for weight in weights):
        return embeds
    factors = torch.ones(embeds.shape[1])
    factors[1 : 1 + len(weights)] = torch.tensor(weights)
    exact = embeds.float()
    weighted = exact * sent(factors, embeds.device)[None, :, None]
    if keeps_mean:
        before, after = exact.mean(), weighted.mean()
        is_zero = (before.abs() <= _ROUNDING * exact.abs().mean()) | (after.abs() <= _ROUNDING * weighted.abs().mean())
        weighted = weighted * torch.where(is_zero, 1.0, before / after)
    return weighted.to(embeds.dtype)
