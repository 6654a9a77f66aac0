"""The prompt language: recorded facts of A1111's own parsers, and prompts that mean harm."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.prompts.chunks import Word, cut
from engine.prompts.conjunction import split_parts
from engine.prompts.dynamic import MAX_CHOICES, MAX_DEPTH, expand
from engine.prompts.editing import MAX_CHANGES, read_schedule
from engine.prompts.errors import PromptError
from engine.prompts.weights import Piece, read_weights

FACTS = json.loads(Path(__file__).with_name("language_facts.json").read_bytes())
"""What A1111's own parsers made of these texts."""

MAX_HOSTILE_S = 0.05
COMMA, WORD = 1, 2


def case(fact: dict[str, object]) -> str:
    return repr(fact["text"] if "text" in fact else fact["parts"])[:40]


@pytest.mark.parametrize("fact", FACTS["weights"], ids=case)
def test_weights_are_those_of_a1111(fact: dict[str, object]):
    parts = [[Piece(text, weight) for text, weight in part] for part in fact["parts"]]
    assert [list(part) for part in read_weights(fact["text"])] == parts


@pytest.mark.parametrize("fact", FACTS["schedules"], ids=case)
def test_prompts_change_when_those_of_a1111_do(fact: dict[str, object]):
    expected = tuple((end, text) for end, text in fact["schedule"])
    assert read_schedule(fact["text"], fact["steps"], fact.get("before")) == expected


@pytest.mark.parametrize("fact", FACTS["parts"], ids=case)
def test_prompts_are_joined_as_in_a1111(fact: dict[str, object]):
    assert [list(part) for part in split_parts(fact["text"])] == fact["parts"]


@pytest.mark.parametrize("fact", FACTS["chunks"], ids=case)
def test_chunks_end_where_those_of_a1111_do(fact: dict[str, object]):
    """A word is a token: `w*3 , w` are three words, a comma and a word."""
    parts = [[word for text, weight in part for word in words(text, weight)] for part in fact["parts"]]
    chunks = cut(parts, COMMA)
    assert [runs(chunk.tokens) for chunk in chunks] == fact["tokens"]
    assert [runs(chunk.weights) for chunk in chunks] == fact["weights"]


def words(text: str, weight: float) -> Iterator[Word]:
    for run in text.split():
        name, _, count = run.partition("*")
        yield from [Word(COMMA if name == "," else WORD, weight)] * int(count or 1)


def runs(values: list[float]) -> list[list[float]]:
    return [[value, len(list(equal))] for value, equal in itertools.groupby(values)]


def test_a_textual_inversion_is_never_divided():
    """It begins a chunk where the rest of this one is too short, and moves with what follows a comma."""
    own = Word(0, 1.2, "own", num_tokens=4)
    first, second = cut([[*[Word(WORD, 1.0)] * 72, own]], COMMA)
    assert (len(first.tokens), second.embeddings, second.weights) == (72, [(0, "own")], [1.2] * 4)
    ordinary = [Word(WORD, 1.0)]
    first, second = cut([[*ordinary * 65, Word(COMMA, 1.0), *ordinary * 3, own, *ordinary * 3]], COMMA)
    assert (len(first.tokens), first.embeddings) == (66, [])
    assert (len(second.tokens), second.embeddings) == (10, [(3, "own")])


def test_what_a1111_cannot_read_is_a_text_here():
    assert read_weights("(a, b:1.1.1)") == ((Piece("a, b:1.1.1", 1.1),),)


def test_a_break_within_brackets_is_one():
    """A1111 changes the weight that marks it, and reads it as a word."""
    assert read_weights("(x BREAK y:1.3)") == ((Piece("x", 1.3),), (Piece("y", 1.3),))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("(a:101)", "weigh no word"),
        ("(a:-101)", "weigh no word"),
        ("(" * 60 + "a", "weigh no word"),
        ("(" * 65, "brackets"),
        ("[" * 65, "brackets"),
    ],
)
def test_weights_that_nobody_means_are_refused(text: str, rule: str):
    with pytest.raises(PromptError, match=rule):
        read_weights(text)


def test_a_prompt_that_changes_at_too_many_places_is_refused():
    assert len(read_schedule("[a|b]" * MAX_CHANGES, 4)) == 4
    with pytest.raises(PromptError, match="places"):
        read_schedule("[a|b]" * (MAX_CHANGES + 1), 4)


WILDCARDS = {
    "animal": ["cat", "{big|small} dog", "__colour__ owl"],
    "colour": ["red", "blue"],
    "loop": ["__loop__"],
    "none": [],
}


@pytest.mark.parametrize(
    ("text", "possible"),
    [
        ("a {red|blue} ball", {"a red ball", "a blue ball"}),
        ("{{a|b}|c}", {"a", "b", "c"}),
        ("{2$$a|b|c}", {"a, b", "a, c", "b, a", "b, c", "c, a", "c, b"}),
        ("{1-2$$ and $$a|b}", {"a", "b", "a and b", "b and a"}),
        ("{2$$__colour__|x}", {"red, x", "blue, x", "x, red", "x, blue"}),
        ("{5$$a}", {"a"}),
        ("{0::a|b}", {"b"}),
        ("{|a}", {"", "a"}),
        ("__animal__", {"cat", "big dog", "small dog", "red owl", "blue owl"}),
        ("x__colour____colour__y", {"xredredy", "xredbluey", "xblueredy", "xbluebluey"}),
        ("{a|", {"{a|"}),
        ("}a{", {"}a{"}),
        (r"\{a|b\}", {r"\{a|b\}"}),
        ("a__b ____ __ (c:1.2)", {"a__b ____ __ (c:1.2)"}),
        ("{a$$b|c}", {"a$$b", "c"}),
    ],
)
def test_everything_is_chosen_that_may_be_and_nothing_else(text: str, possible: set[str]):
    assert {expand(text, str(seed), WILDCARDS.get) for seed in range(200)} == possible


def test_a_choice_is_as_probable_as_its_weight_says_and_the_same_for_the_same_seed():
    chosen = [expand("{3::a|b}", str(seed), WILDCARDS.get) for seed in range(1000)]
    assert 700 < chosen.count("a") < 800
    assert chosen == [expand("{3::a|b}", str(seed), WILDCARDS.get) for seed in range(1000)]
    assert "".join(chosen[:16]) == "aaabaaaaaabbaaaa", "what was drawn once can be drawn again in every version"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("__nothing__", "does not have: nothing"),
        ("__none__", "without any text: none"),
        ("__loop__", "deep"),
        ("{" * (MAX_DEPTH + 1) + "}" * (MAX_DEPTH + 1), "deep"),
        ("{a}" * (MAX_CHOICES + 1), "choices"),
        ("{" + "x" * 5000 + "}" + "y" * 5000, "characters"),
    ],
)
def test_what_cannot_be_chosen_is_refused_by_a_rule(text: str, rule: str):
    with pytest.raises(PromptError, match=rule):
        expand(text, "0", WILDCARDS.get)


def hostile_prompts() -> Iterator[str]:
    """A thousand: deep, long, unbalanced."""
    chance = random.Random(18)
    signs = ["[", "]", "(", ")", ":", "{", "}", "a", "0.5", "\\", ",", " ", "BREAK", "AND", "__", "$$", "::"]
    for sign in (*signs, "[a:", "(a", "(a:0.1)", "[a|b]", "[a:b:3]", "([a:b:.5]", "{a|", "|", "\n", ": ", "\\(", "(:"):
        yield (sign * 8000)[:8000]
    for begin, middle, end in (("(", "a", ")"), ("[", "a", "]"), ("[", "a", ":3]"), ("{", "a", "}"), ("[", "a", "|b]")):
        for depth in (30, 60, 1500):
            yield begin * depth + middle + end * depth
    yield from (":" + " " * 7999, "(a:" + "1" * 7990, "(a:1" + " " * 7990, "{99$$" + "a|" * 3900 + "}")
    while True:
        chosen = chance.sample([*signs, "|"], chance.randint(2, 8))
        yield "".join(chance.choices(chosen, k=chance.randint(1000, 8000)))[:8000]


def test_hostile_prompts_are_read_or_refused_at_once():
    """Whatever is in it, a prompt costs its length. Of three tries the quickest counts: the machine has other work."""
    readers: tuple[Callable[[str], object], ...] = (
        lambda text: read_schedule(text, 300),
        read_weights,
        split_parts,
        lambda text: expand(text, "0", WILDCARDS.get),
    )
    for text in itertools.islice(hostile_prompts(), 1000):
        for reader in readers:
            assert min(itertools.islice(seconds(reader, text), 3)) < MAX_HOSTILE_S, text[:60]


def seconds(reader: Callable[[str], object], text: str) -> Iterator[float]:
    """Processor seconds of each try, until one is quick enough."""
    while True:
        began = time.thread_time()
        with contextlib.suppress(PromptError):
            reader(text)
        taken = time.thread_time() - began
        yield taken
        if taken < MAX_HOSTILE_S:
            return
