"""Token ids against transformers' CLIPTokenizer: 20,000 texts, and every way in which model folders describe tokens."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import CLIPTokenizer

from engine.errors import ModelLoadError
from engine.models import clip_vocabulary as clip_module
from engine.models.clip_vocabulary import clip_vocabulary
from engine.models.tokenizer import Tokenizer

DREAMLET = Path(__file__).resolve().parents[2] / "models" / "dreamlet" / "tokenizer"
NUM_TEXTS = 20_000
START, END = "<|startoftext|>", "<|endoftext|>"

WORDS = (
    *("a cat", "Hello", END, END.upper(), START, "!", "!!", "it's", "I'LL", "42", "½", "<new>", "<a>", "'s", "'S", "_"),
    *("naïve", "日本語", "\U0001f993", "\U0001f469\u200d\U0001f469\u200d\U0001f467", "\u0301", "\ufb01", "\u0130", "ß"),
    *("\x00", "\x07", "\u200b", "\u3000", "\t\n", "é", "e\u0301", "--", "...", "\ufeff", "\U0001d518", "\u01c5", " "),
)


def texts(count: int) -> Iterator[str]:
    """Any characters at all, Latin and control characters, known words, emoji, long words, one word often."""
    rng = random.Random(0)
    for _ in range(count):
        kind = rng.randrange(6)
        if kind == 0:
            ranges = [(32, 127), (0, 0xD800), (0xE000, 0x110000)]
            yield "".join(chr(rng.randrange(*rng.choice(ranges))) for _ in range(rng.randrange(1, 60)))
        elif kind == 1:
            yield "".join(chr(rng.randrange(0x250)) for _ in range(rng.randrange(120)))
        elif kind == 2:
            yield rng.choice(["", " "]).join(rng.choice(WORDS) for _ in range(rng.randrange(40)))
        elif kind == 3:
            yield "".join(chr(rng.randrange(0x1F300, 0x1FB00)) for _ in range(rng.randrange(40)))
        elif kind == 4:
            letters = "abcdefghijklmnopqrstuvwxyzABC'"
            words = ("".join(rng.choices(letters, k=rng.randrange(1, 12))) for _ in range(rng.randrange(30)))
            yield " ".join(words)
        else:
            yield rng.choice(WORDS) * rng.randrange(200)


def described(text: str, *, normalized: bool) -> dict[str, Any]:
    return {"content": text, "lstrip": False, "normalized": normalized, "rstrip": False, "single_word": False}


SD_1 = {
    "bos_token": described(START, normalized=True),
    "eos_token": described(END, normalized=True),
    "unk_token": described(END, normalized=True),
    "pad_token": END,
}
AS_CONFIG = {
    name: value | {"__type": "AddedToken"} if isinstance(value, dict) else value for name, value in SD_1.items()
}
DECODER = {
    "0": described("!", normalized=False) | {"special": True},
    "2016": described(START, normalized=True) | {"special": True},
    "2017": described(END, normalized=True) | {"special": True},
}
FOLDERS: dict[str, dict[str, Any]] = {
    "nothing said": {},
    "SD 1": {"tokenizer_config.json": AS_CONFIG, "special_tokens_map.json": SD_1},
    "only the map": {"special_tokens_map.json": SD_1},
    "SD 2": {
        "tokenizer_config.json": AS_CONFIG | {"pad_token": "!"},
        "special_tokens_map.json": SD_1 | {"pad_token": "!"},
    },
    "SDXL": {"tokenizer_config.json": AS_CONFIG | {"pad_token": "!", "added_tokens_decoder": DECODER}},
    "added": {"tokenizer_config.json": AS_CONFIG, "added_tokens.json": {"<new>": 2018}},
    "additional": {"tokenizer_config.json": AS_CONFIG | {"additional_special_tokens": ["<a>"]}},
}


def written(folder: Path, files: dict[str, Any], *, is_whole: bool) -> Path:
    """A tokenizer's folder with the built-in model's vocabulary, as `tokenizer.json` or as two files."""
    folder.mkdir()
    if is_whole:
        shutil.copy(DREAMLET / "tokenizer.json", folder)
    else:
        model = json.loads((DREAMLET / "tokenizer.json").read_text())["model"]
        (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
        (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, model["merges"])]) + "\n")
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return folder


def assert_reads_as_transformers(folder: Path, count: int) -> None:
    ours, theirs = Tokenizer(folder), CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    some = list(texts(count))
    whole = theirs(some, truncation=False, padding=False, verbose=False).input_ids
    padded = theirs(some, truncation=True, padding="max_length", max_length=77).input_ids
    for text, expected, expected_padded in zip(some, whole, padded, strict=True):
        found = ours.tokens(text)
        assert found == expected, repr(text)
        assert ours.padded(found) == expected_padded, repr(text)


def test_twenty_thousand_texts_have_the_ids_of_transformers():
    assert_reads_as_transformers(DREAMLET, NUM_TEXTS)


@pytest.mark.parametrize("is_whole", [False, True])
@pytest.mark.parametrize("name", FOLDERS)
def test_special_tokens_are_found_wherever_a_folder_describes_them(tmp_path: Path, name: str, *, is_whole: bool):
    """Another padding token, tokens that are matched before or after lower-casing, tokens beyond the vocabulary."""
    assert_reads_as_transformers(written(tmp_path / "tokenizer", FOLDERS[name], is_whole=is_whole), 400)


def test_a_very_long_text_has_the_ids_of_transformers():
    text = "a cat, \U0001f993 and a naïve dog; " * 5_000
    theirs = CLIPTokenizer.from_pretrained(DREAMLET, local_files_only=True)
    assert Tokenizer(DREAMLET).tokens(text) == theirs(text, verbose=False).input_ids


def test_a_folder_without_a_vocabulary_is_refused(tmp_path: Path):
    (tmp_path / "tokenizer").mkdir()
    with pytest.raises(ModelLoadError, match=f"{tmp_path}/tokenizer cannot be read"):
        Tokenizer(tmp_path / "tokenizer")


def test_clip_s_own_tokenizer_ships_with_the_server(tmp_path: Path):
    """Ids that are published, and those of transformers with the same vocabulary."""
    own = Tokenizer(None)
    assert own.tokens("a photo of a cat") == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert own.tokens("") == [49406, 49407]
    assert (own.comma, own.largest_token) == (267, 49407)
    assert own.marked([320, 2368]) == [49406, 320, 2368, *[49407] * 74]
    assert Tokenizer(None, padding=0).marked([320]) == [49406, 320, 49407, *[0] * 74]
    vocabulary, merges = clip_vocabulary()
    assert [vocabulary[token] for token in ("!", "Ń", "!</w>", "<|startoftext|>", "<|endoftext|>")] == [
        *(0, 255, 256),
        *(49406, 49407),
    ]
    theirs = CLIPTokenizer(vocab=vocabulary, merges=merges)
    for text in texts(2000):
        assert own.tokens(text) == theirs(text, verbose=False).input_ids, text


def test_the_vocabulary_that_ships_names_its_licence():
    folder = Path(clip_module.__file__).parent
    licence = (folder / "LICENSE.txt").read_text(encoding="utf-8")
    assert "OpenAI" in licence
    assert "Permission is hereby granted" in licence
    assert (folder / "merges.txt.gz").stat().st_size < 250_000
