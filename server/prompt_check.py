"""Whether the model of a request can read its prompts: length and skipped layers, checked before it is accepted."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from engine.errors import ModelLoadError
from engine.leg import Leg
from engine.limits import LIMITS
from engine.models.fake_words import fake_chunks
from engine.models.layout import read_configs
from engine.models.locate import FAKE_MODELS, ModelFolder
from engine.models.textual_inversions import TextualInversion
from engine.params import GenerationParams
from engine.prompt_limits import are_surely_short, check_clip_skip, legs_to_read, num_chunks
from engine.prompts.prompt import Prompt

__all__ = ["PromptCheck"]

_log = structlog.get_logger("server")

_MAX_TOKENIZERS: Final = 4
"""Models whose tokenizers are in memory, 20 MB each."""


class _Rules(NamedTuple):
    """What is known of a model without its tokenizer."""

    path: Path | None
    """None: a model without weights."""
    num_layers: int
    """Of the text encoder that has fewest."""
    embeds_guidance: bool
    inversions: tuple[TextualInversion, ...] = ()
    """Textual inversions that its prompts may name, or must not."""


class PromptCheck:
    """Belongs to the event loop's thread. A tokenizer is loaded when a prompt may be too long for its model."""

    def __init__(
        self, models: Iterable[tuple[str, ModelFolder]], inversions: tuple[TextualInversion, ...] = ()
    ) -> None:
        """Read what each model says of itself.

        Args:
            models: by the names that `GenerationParams.model` has.
            inversions: textual inversions, whatever model they are for.
        """
        self._rules = {
            name: _rules_of(folder, inversions)
            for name, folder in models
            if folder.path or folder.model_id in FAKE_MODELS
        }

    async def check(self, params: GenerationParams) -> None:
        """Check a request that is about to be accepted. The engine checks it again, in its own model.

        Raises:
            InvalidParamsError: its model cannot read its prompts.
        """
        rules = self._rules.get(params.model)
        if rules is None or not params.legs:
            return
        check_clip_skip(params.clip_skip, rules.num_layers)
        long: list[Leg] = []
        for leg in legs_to_read(params, embeds_guidance=rules.embeds_guidance):
            if are_surely_short(leg) and not rules.inversions:
                num_chunks(leg, lambda _: 1)
            else:
                long.append(leg)
        if long:
            await asyncio.to_thread(_count, rules, long)


def _rules_of(folder: ModelFolder, inversions: tuple[TextualInversion, ...]) -> _Rules:
    if folder.path is None:
        return _Rules(None, LIMITS.max_clip_skip + 1, embeds_guidance=False)
    configs = read_configs(folder.path)
    return _Rules(
        folder.path,
        min(configs.text_layers(part) for part in configs.text_encoders),
        embeds_guidance=bool(configs.unet.get("time_cond_proj_dim")),
        inversions=inversions,
    )


def _count(rules: _Rules, legs: Sequence[Leg]) -> None:
    """Count the chunks of texts that may be too long.

    Raises:
        InvalidParamsError: one is, or it names a textual inversion that cannot be used.
    """
    count = _count_fake if rules.path is None else _counter(rules.path, rules.inversions)
    if count is None:
        return
    for leg in legs:
        num_chunks(leg, count)


def _count_fake(prompt: Prompt) -> int:
    return len(fake_chunks(prompt))


@functools.lru_cache(maxsize=_MAX_TOKENIZERS)
def _counter(path: Path, inversions: tuple[TextualInversion, ...]) -> Callable[[Prompt], int] | None:
    """In how many chunks a model reads a prompt; None where its tokenizer cannot be read: the engine will say why."""
    from engine.models.prompt_cutter import load_cutters, most_chunks  # noqa: PLC0415 - the library is slow to import

    try:
        return functools.partial(most_chunks, load_cutters(path, inversions))
    except ModelLoadError as error:
        _log.warning("prompts cannot be counted before the engine reads them", reason=str(error))
        return None
