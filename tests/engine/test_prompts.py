"""Prompts: each text is read as itself, remembered for a while, and what was cut off is told."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from engine.engine import Engine
from engine.models.base import EncodedPrompt
from engine.models.fake import FakeModel
from engine.prompts.encoder import MAX_REMEMBERED, PromptEncoder
from engine.prompts.prompt import Prompt
from tests.engine.drawing import Params

LONG = "a very " * 40
STEPS = (999.0, 500.5)


@pytest.mark.parametrize(
    ("one", "other"), [("a cat", "A cat"), ("a cat", "a cat "), (LONG + "big cat", LONG + "big dog"), ("", " ")]
)
def test_texts_that_differ_anywhere_are_read_apart(one: str, other: str):
    """Whether case, spaces or a far end matter is for the model's tokenizer to say."""
    model = FakeModel()
    prompts = PromptEncoder(model)
    prompts.encode(Prompt(one), 1, STEPS)
    assert torch.equal(prompts.encode(Prompt(other), 1, STEPS).prompt, model.encode_prompt(Prompt(other)).attended)


def test_the_text_that_was_not_used_for_longest_is_forgotten():
    """A server reads texts for years: what it remembers stays bounded."""
    model = FakeModel()
    prompts = PromptEncoder(model)
    for index in range(MAX_REMEMBERED):
        prompts.encode(Prompt(f"text {index}"), 1, STEPS)
    prompts.encode(Prompt("text 0"), 1, STEPS)
    prompts.encode(Prompt("one more"), 1, STEPS)
    assert model.num_prompts == MAX_REMEMBERED + 1
    prompts.encode(Prompt("text 0"), 1, STEPS)
    assert model.num_prompts == MAX_REMEMBERED + 1, "the text used last but one was forgotten"
    prompts.encode(Prompt("text 1"), 1, STEPS)
    assert model.num_prompts == MAX_REMEMBERED + 2, "nothing was forgotten"


class Large(FakeModel):
    """Makes a hundred megabytes of each text, without having them: one number, repeated."""

    def encode_prompt(self, prompt: Prompt, num_chunks: int = 1) -> EncodedPrompt:
        return EncodedPrompt(super().encode_prompt(prompt, num_chunks).attended[:1, :1].expand(10_000, 2_500))


def test_large_texts_are_forgotten_sooner():
    """A text of Stable Diffusion XL is 26 MB: 64 of them would fill a small GPU."""
    model = Large()
    prompts = PromptEncoder(model)
    for text in ("one", "two", "three", "three", "two", "one"):
        prompts.encode(Prompt(text), 1, STEPS)
    assert model.num_prompts == 4, "two of them fit into 256 MiB"


class Reading(FakeModel):
    """Its time embedding depends on the prompt, as that of the built-in model does."""

    def encode_prompt(self, prompt: Prompt, num_chunks: int = 1) -> EncodedPrompt:
        attended = super().encode_prompt(prompt, num_chunks).attended
        return EncodedPrompt(attended, attended[:1])

    def embed_time(self, timesteps: torch.Tensor, prompt: EncodedPrompt, *others: Any) -> torch.Tensor:
        assert prompt.addition is not None
        return super().embed_time(timesteps, prompt, *others) + prompt.addition[:, :1]


def test_each_text_has_the_time_embedding_of_its_own_words_and_timesteps():
    model = Reading()
    prompts = PromptEncoder(model)
    for text in ("a cat", "a dog", "a cat"):
        for steps in (STEPS, (999.0, 400.0), STEPS):
            expected = model.embed_time(torch.tensor(steps), model.encode_prompt(Prompt(text)))
            assert torch.equal(prompts.encode(Prompt(text), 1, steps).time, expected), (text, steps)


def test_pictures_that_are_told_the_same_share_it(params: Params):
    """Four pictures of a request would otherwise hold four times the keys and values."""
    engine = Engine(FakeModel(), rows_per_call=8)
    request = engine.prepare("0", params(num_images=4, negative_prompt="a dog"))
    engine.add(request)
    while not all(picture.is_ready for picture in request.pictures):
        engine.step()
    for index in range(2):
        told = [picture.leg.conditionings[index] for picture in request.pictures]
        assert len({one.prompt.data_ptr() for one in told}) == 1
        assert len({one.time.data_ptr() for one in told}) == 1


def test_truncated_tokens_of_both_texts_are_counted_and_only_of_those_that_are_read(params: Params):
    """The fake model reads 75 words."""
    engine = Engine(FakeModel())
    texts = {"prompt": "word " * 78, "negative_prompt": "word " * 77}
    assert engine.prepare("guided", params(**texts)).truncated_tokens == 3 + 2
    assert engine.prepare("unguided", params(**texts, guidance_scale=1.0)).truncated_tokens == 3
