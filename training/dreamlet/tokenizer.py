"""The tokenizer: CLIP's byte-level byte-pair encoding, its merges learned from our captions."""

import json
from collections.abc import Iterator
from random import Random

from tokenizers import Tokenizer, trainers
from tokenizers.models import BPE
from transformers import CLIPTokenizer

from training.dreamlet.captions import draw_example

START = "<|startoftext|>"
END = "<|endoftext|>"
MAX_TOKENS = 77
VOCABULARY_SIZE = 2048


def train_tokenizer(captions: int = 20_000) -> CLIPTokenizer:
    """Learn the merges. All 256 bytes are in the vocabulary, so that no text whatever is unknown.

    Args:
        captions: how many to learn from.
    """
    clip = CLIPTokenizer()
    learner = Tokenizer(BPE(end_of_word_suffix="</w>"))
    learner.normalizer = clip.backend_tokenizer.normalizer
    learner.pre_tokenizer = clip.backend_tokenizer.pre_tokenizer
    room = VOCABULARY_SIZE - 256 - 2  # the bytes at the ends of words, and the two marks below
    trainer = trainers.BpeTrainer(
        vocab_size=room, initial_alphabet=_byte_letters(), end_of_word_suffix="</w>", show_progress=False
    )
    learner.train_from_iterator(_captions(captions), trainer)
    merges = _merges(learner)
    letters = _byte_letters()
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges)]
    vocabulary = {piece: number for number, piece in enumerate([*dict.fromkeys(pieces), START, END])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_TOKENS)


def token_ids(tokenizer: CLIPTokenizer, captions: list[str]) -> list[list[int]]:
    """Captions as pipelines see them: 77 tokens each, padded with the end mark, cut if longer."""
    encoded = tokenizer(captions, padding="max_length", truncation=True, max_length=MAX_TOKENS)
    ids: list[list[int]] = encoded["input_ids"]
    return ids


def _captions(count: int) -> Iterator[str]:
    random = Random(77)  # noqa: S311 - captions, not secrets
    for _ in range(count):
        yield draw_example(random)[1]


def _byte_letters() -> list[str]:
    """The letters that stand for the 256 bytes in byte-level encodings (GPT-2's table), in CLIP's order."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]


def _merges(learner: Tokenizer) -> list[tuple[str, str]]:
    model = json.loads(learner.to_str())["model"]
    return [(first, second) for first, second in model["merges"]]
