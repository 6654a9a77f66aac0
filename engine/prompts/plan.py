"""Which texts the rows of each model call are told. No torch."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import Final, NamedTuple

from engine.prompts.conjunction import MAX_PARTS, split_parts
from engine.prompts.editing import Schedule, read_schedule
from engine.prompts.errors import PromptError
from engine.prompts.prompt import Emphasis, Prompt, PromptSyntax
from engine.prompts.weights import MAX_WEIGHT, read_weights

__all__ = ["MAX_TOLD_CHARACTERS", "PLAIN", "PromptPlan", "Reading", "ScheduledPart", "plan_prompts", "read_prompt"]

MAX_TOLD_CHARACTERS: Final = 32_000
"""Of all texts that one prompt becomes while it is drawn: each is read by the text encoder."""
MAX_TEXTS: Final = 32


class ScheduledPart(NamedTuple):
    """One of the prompts that `AND` joins."""

    weight: float
    schedule: Schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How the prompts of a leg are read, and when the negative one counts."""

    syntax: PromptSyntax = "plain"
    emphasis: Emphasis = "original"
    clip_skip: int = 0
    guidance_start: float = 0.0
    """Share of the calls before which there is no guidance."""
    guidance_end: float = 1.0
    """Share of the calls after which there is none."""


PLAIN: Final = Reading()


@dataclass(frozen=True, slots=True)
class PromptPlan:
    """What is told at each call of a leg."""

    prompts: tuple[Prompt, ...]
    """Each once."""
    rows: tuple[tuple[int, ...], ...]
    """(n,): for each call the prompts of its rows, by their index; the negative one first where there is guidance."""
    weights: tuple[float, ...]
    """Of the prompts that `AND` joins; (1.0,) without any."""


@functools.lru_cache(maxsize=256)
def read_prompt(
    text: str, syntax: PromptSyntax, num_steps: int, num_steps_before: int | None, *, is_negative: bool
) -> tuple[ScheduledPart, ...]:
    """Read one prompt of a leg, and check that it can be told.

    Args:
        text: the prompt.
        syntax: how it is read.
        num_steps: calls of the leg, as A1111 counts them.
        num_steps_before: of the leg before, where there is one.
        is_negative: `AND` is then a word.

    Raises:
        PromptError: it breaks a rule of the language.
    """
    if syntax == "plain":
        return (ScheduledPart(1.0, ((num_steps, text),)),)
    parts = [(text, 1.0)] if is_negative else split_parts(text)
    if len(parts) > MAX_PARTS:
        raise PromptError(f"must join at most {MAX_PARTS} prompts by AND")
    if not all(abs(weight) <= MAX_WEIGHT for _, weight in parts):
        raise PromptError(f"must weigh no part more than {MAX_WEIGHT:g}")
    scheduled = tuple(ScheduledPart(weight, read_schedule(part, num_steps, num_steps_before)) for part, weight in parts)
    texts = {told for part in scheduled for _, told in part.schedule}
    if len(texts) > MAX_TEXTS:
        raise PromptError(f"must become at most {MAX_TEXTS} different texts while it is drawn")
    if sum(map(len, texts)) > MAX_TOLD_CHARACTERS:
        raise PromptError(f"must have at most {MAX_TOLD_CHARACTERS} characters in all texts that it becomes")
    for told in texts:
        read_weights(told)
    return scheduled


@functools.lru_cache(maxsize=256)
def plan_prompts(
    prompt: str,
    negative_prompt: str | None,
    reading: Reading,
    *,
    num_calls: int,
    num_steps: int,
    num_steps_before: int | None,
) -> PromptPlan:
    """Plan the rows of a leg.

    Args:
        prompt: what to draw.
        negative_prompt: None: there is no guidance.
        reading: how they are read.
        num_calls: of the model.
        num_steps: the same as A1111 counts it: the moments of a prompt are shares of it.
        num_steps_before: see `read_prompt`.

    Raises:
        PromptError: a prompt breaks a rule of the language.
    """
    steps = (reading.syntax, num_steps, num_steps_before)
    positives = read_prompt(prompt, *steps, is_negative=False)
    negatives = () if negative_prompt is None else read_prompt(negative_prompt, *steps, is_negative=True)
    indices: dict[str, int] = {}
    rows: list[tuple[int, ...]] = []
    for call in range(num_calls):
        # Without its negative prompt, a sum of several would not be one.
        is_guided = len(positives) > 1 or (
            reading.guidance_start * num_calls <= call and call + 1 <= reading.guidance_end * num_calls
        )
        told = itertools.chain(negatives if is_guided else (), positives)
        rows.append(tuple(indices.setdefault(_at(part.schedule, call), len(indices)) for part in told))
    is_weighted = reading.syntax != "plain"
    return PromptPlan(
        tuple(Prompt(text, is_weighted, reading.emphasis, reading.clip_skip) for text in indices),
        tuple(rows),
        tuple(part.weight for part in positives),
    )


def _at(schedule: Schedule, call: int) -> str:
    return next((text for end, text in schedule if end >= call), schedule[-1][1])
