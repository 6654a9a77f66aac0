"""Dynamic prompts of a request: chosen once, when it is accepted, each picture's by its own seed. No torch."""

from __future__ import annotations

from dataclasses import replace

from engine.errors import InvalidParamsError
from engine.params import GenerationParams
from engine.prompts.dynamic import Wildcards, expand
from engine.prompts.errors import PromptError
from engine.prompts.prompt import ChosenTexts

__all__ = ["with_choices_made"]


def with_choices_made(params: GenerationParams, wildcards: Wildcards) -> GenerationParams:
    """The same request with everything chosen, and kept in it: files of wildcards change.

    Raises:
        InvalidParamsError: a prompt breaks a rule of the language.
    """
    if params.prompt_syntax != "dynamic":
        return params
    return replace(params, chosen_texts=tuple(_chosen(params, seed, wildcards) for seed in params.seeds))


def _chosen(params: GenerationParams, seed: int, wildcards: Wildcards) -> ChosenTexts:
    def chosen(field: str, text: str) -> str:
        try:
            # Another field is another choice; the prompt's is that of the bare seed.
            return expand(text, str(seed) if field == "prompt" else f"{seed} {field}", wildcards)
        except PromptError as error:
            raise InvalidParamsError(field, str(error), text) from None

    hires = params.hires
    prompt, negative = (None, None) if hires is None else (hires.prompt, hires.negative_prompt)
    return ChosenTexts(
        prompt=chosen("prompt", params.prompt),
        negative_prompt=chosen("negative_prompt", params.negative_prompt),
        hires_prompt=None if prompt is None else chosen("hires.prompt", prompt),
        hires_negative_prompt=None if negative is None else chosen("hires.negative_prompt", negative),
    )
