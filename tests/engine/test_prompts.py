"""Prompts: each text is read as itself, remembered for a while, and what was cut off is told."""

from __future__ import annotations

import pytest
import torch

from engine.engine import Engine
from engine.models.fake import FakeModel
from engine.prompts import MAX_REMEMBERED, PromptEncoder
from tests.engine.drawing import Params

LONG = "a very " * 40


@pytest.mark.parametrize(
    ("one", "other"), [("a cat", "A cat"), ("a cat", "a cat "), (LONG + "big cat", LONG + "big dog"), ("", " ")]
)
def test_texts_that_differ_anywhere_are_read_apart(one: str, other: str):
    """Whether case, spaces or a far end matter is for the model's tokenizer to say."""
    model = FakeModel()
    prompts = PromptEncoder(model)
    prompts.encode(one)
    assert torch.equal(prompts.encode(other), model.encode_prompt(other))


def test_the_text_that_was_not_used_for_longest_is_forgotten():
    """A server reads texts for years: what it remembers stays bounded."""
    model = FakeModel()
    prompts = PromptEncoder(model)
    for index in range(MAX_REMEMBERED):
        prompts.encode(f"text {index}")
    prompts.encode("text 0")
    prompts.encode("one more")
    assert model.num_prompts == MAX_REMEMBERED + 1
    prompts.encode("text 0")
    assert model.num_prompts == MAX_REMEMBERED + 1, "the text used last but one was forgotten"
    prompts.encode("text 1")
    assert model.num_prompts == MAX_REMEMBERED + 2, "nothing was forgotten"


def test_truncated_tokens_of_both_texts_are_counted_and_only_of_those_that_are_read(params: Params):
    """The fake model reads 75 words."""
    engine = Engine(FakeModel())
    texts = {"prompt": "word " * 78, "negative_prompt": "word " * 77}
    assert engine.prepare("guided", params(**texts)).truncated_tokens == 3 + 2
    assert engine.prepare("unguided", params(**texts, guidance_scale=1.0)).truncated_tokens == 3
