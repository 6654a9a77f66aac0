"""Prompt limits: in how many parts of 75 tokens the texts of a leg may be read. No torch.

The engine checks them when it prepares a request; the gateway when it accepts one.
"""

from __future__ import annotations

import operator
import unicodedata
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from engine.errors import InvalidParamsError
from engine.prompts.chunks import CHUNK_TOKENS, COMMA_REACH, MAX_CHUNKS
from engine.prompts.errors import PromptError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from engine.leg import Leg
    from engine.params import GenerationParams
    from engine.prompts.prompt import Prompt

__all__ = ["MAX_TOLD_CHUNKS", "are_surely_short", "check_clip_skip", "legs_to_read", "num_chunks", "usual_chunks"]

MAX_TOLD_CHUNKS: Final = 64
"""Of all texts of a leg: for Stable Diffusion 1 in half precision 256 MB, and as long to read as four steps."""
_USUAL_CHUNK_CHARACTERS: Final = 340
"""75 tokens of English prompts, commas and spaces included."""


def legs_to_read(params: GenerationParams, *, embeds_guidance: bool) -> Iterator[Leg]:
    """What a model is told for the pictures of a request, each text at least once.

    Args:
        params: the request.
        embeds_guidance: whether the network is told the guidance scale: it then guides by itself, in one row.
    """
    # Only chosen texts differ from picture to picture.
    for index in range(1 if params.chosen_texts is None else params.num_images):
        for leg in params.of_image(index).legs:
            yield replace(leg, negative_prompt=None) if embeds_guidance else leg


def num_chunks(leg: Leg, count: Callable[[Prompt], int]) -> int:
    """Chunks of a leg's longest text.

    Args:
        leg: what is drawn.
        count: in how many chunks the model reads a text.

    Raises:
        InvalidParamsError: this model cannot read its prompts.
    """
    try:
        return _num_chunks(leg, count)
    except InvalidParamsError as error:
        # A second leg that repeats the first one's texts is never the first to fail.
        if leg.start == "leg":
            raise InvalidParamsError(f"hires.{error.field}", error.rule, error.value) from None
        raise


def _num_chunks(leg: Leg, count: Callable[[Prompt], int]) -> int:
    prompts = leg.prompts
    if len(prompts.weights) > 1 and leg.negative_prompt is None:
        raise InvalidParamsError("prompt", "must not join prompts by AND with a model that guides by itself", "AND")
    parts = () if leg.negative_prompt is None else leg.read(leg.negative_prompt, is_negative=True)
    negatives = {told for part in parts for _, told in part.schedule}
    counts: dict[str, int] = {}
    for told in prompts.prompts:
        try:
            counts[told.text] = count(told)
        except PromptError as error:
            field = "negative_prompt" if told.text in negatives else "prompt"
            raise InvalidParamsError(field, str(error), told.text) from None
    text, most = max(counts.items(), key=operator.itemgetter(1))
    name = "negative_prompt" if text in negatives else "prompt"
    if most > MAX_CHUNKS:
        rule = f"must have at most {MAX_CHUNKS * CHUNK_TOKENS} tokens, counted in parts of {CHUNK_TOKENS}"
        raise InvalidParamsError(name, rule, text)
    if most * len(counts) > MAX_TOLD_CHUNKS:
        rule = f"must have at most {MAX_TOLD_CHUNKS} parts of {CHUNK_TOKENS} tokens in all texts that it becomes"
        raise InvalidParamsError("prompt", rule, leg.prompt)
    return most


def are_surely_short(leg: Leg) -> bool:
    """Whether the texts of a leg are within the limits whatever the tokenizer: most are, and it need not be loaded.

    Without textual inversions, whose names may count for more tokens than they have characters.
    """
    texts = leg.prompts.prompts
    most = max(_most_chunks(prompt.text) if prompt.is_weighted else 1 for prompt in texts)
    return most <= MAX_CHUNKS and most * len(texts) <= MAX_TOLD_CHUNKS


def usual_chunks(leg: Leg) -> int:
    """About as many chunks as the longest text of a leg has, by its characters: for estimates, without a tokenizer."""
    longest = max(len(prompt.text) if prompt.is_weighted else 0 for prompt in leg.prompts.prompts)
    return min(MAX_CHUNKS, 1 + longest // _USUAL_CHUNK_CHARACTERS)


def check_clip_skip(clip_skip: int, num_layers: int) -> None:
    """Check that a text encoder has layers enough.

    Raises:
        InvalidParamsError: it has not.
    """
    if clip_skip >= num_layers:
        raise InvalidParamsError("clip_skip", f"must be less than {num_layers}", clip_skip)


def _most_chunks(text: str) -> int:
    # CLIP's tokenizer normalises a text, and a token has at least one byte of what that gives.
    most_tokens = len(unicodedata.normalize("NFC", text).lower().encode(errors="surrogatepass"))
    # Each chunk but the last before a BREAK has more tokens than this: it ends early only after a comma.
    return text.count("BREAK") + 1 + most_tokens // (CHUNK_TOKENS - COMMA_REACH)
