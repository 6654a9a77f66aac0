"""Dynamic prompts: `{a|b}`, `{2$$a|b|c}`, `{3::a|b}`, `__name__` -> one text, chosen by a seed. No torch.

The syntax is that of the Dynamic Prompts extension; how it chooses is our own, and the same on every machine.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Final

from engine.prompts.errors import PromptError

__all__ = ["MAX_CHOICES", "MAX_DEPTH", "MAX_LENGTH", "Wildcards", "expand", "no_wildcards"]

MAX_DEPTH: Final = 8
"""Choices and wildcards within each other."""
MAX_LENGTH: Final = 8000
"""Characters of the text that comes out."""
MAX_CHOICES: Final = 1000
"""Choices and wildcards in all, those within others too."""

Wildcards = Callable[[str], Sequence[str] | None]
"""Name -> the texts that it may stand for; None: there is none of this name."""

_NAME: Final = re.compile(r"__(?!_)([\w/-]{1,200}?)__", re.ASCII)
_TOKEN: Final = re.compile(r"\\.|[{}|]|__(?!_)[\w/-]{1,200}?__", re.DOTALL | re.ASCII)
_NEXT: Final = re.compile(r"[\\{_]")
_COUNT: Final = re.compile(r"\s*(\d{1,2})(?:\s*-\s*(\d{1,2}))?\s*")
_SHARE: Final = re.compile(r"\s*(\d{1,6}(?:\.\d{0,6})?|\.\d{1,6})::")
_SEPARATOR: Final = ", "


def no_wildcards(_: str) -> None:
    """There are none."""


def expand(text: str, seed: str, wildcards: Wildcards) -> str:
    """Choose, everywhere in a text, one of what it may say. What is not well-formed is text.

    Args:
        text: a prompt.
        seed: the same one gives the same text, as long as the wildcards are the same.
        wildcards: what names stand for.

    Raises:
        PromptError: the text goes beyond a limit, or names a wildcard that there is none of.
    """
    return _Expansion(random.Random(seed), wildcards).of(text, 0)  # noqa: S311 - pictures, not secrets


class _Expansion:
    def __init__(self, chance: random.Random, wildcards: Wildcards) -> None:
        self._chance = chance
        self._wildcards = wildcards
        self._num_choices = 0

    def of(self, text: str, depth: int) -> str:
        """The text with everything chosen."""
        ends = _groups(text)
        told: list[str] = []
        length = place = 0
        while place < len(text):
            end = ends.get(place)
            name = _NAME.match(text, place) if text[place] == "_" else None
            if end is not None:
                told.append(self._chosen(text[place + 1 : end], depth + 1))
                place = end + 1
            elif name is not None:
                told.append(self._wildcard(name.group(1), depth + 1))
                place = name.end()
            else:
                next_place = _next_place(text, place)
                told.append(text[place:next_place])
                place = next_place
            length += len(told[-1])
            if length > MAX_LENGTH:
                raise PromptError(f"must have at most {MAX_LENGTH} characters when everything is chosen")
        return "".join(told)

    def _count(self, depth: int) -> None:
        self._num_choices += 1
        if depth > MAX_DEPTH:
            raise PromptError(f"must not have choices and wildcards more than {MAX_DEPTH} deep")
        if self._num_choices > MAX_CHOICES:
            raise PromptError(f"must have at most {MAX_CHOICES} choices and wildcards")

    def _wildcard(self, name: str, depth: int) -> str:
        self._count(depth)
        texts = self._wildcards(name)
        if texts is None:
            raise PromptError(f"names a wildcard that this server does not have: {name}")
        if not texts:
            raise PromptError(f"names a wildcard without any text: {name}")
        return self.of(texts[int(self._chance.random() * len(texts))], depth)

    def _chosen(self, inside: str, depth: int) -> str:
        """What `{inside}` becomes."""
        self._count(depth)
        least = most = 1
        separator = _SEPARATOR
        head = inside.split("$$", 2)
        count = _COUNT.fullmatch(head[0]) if len(head) > 1 else None
        if count is not None:
            least = int(count.group(1))
            most = least if count.group(2) is None else int(count.group(2))
            least, most = min(least, most), max(least, most)
            has_separator = len(head) == 3 and not _splits(head[1])
            if has_separator:
                separator = head[1]
            inside = head[2] if has_separator else inside.split("$$", 1)[1]
        choices = [_weighed(choice) for choice in _choices(inside)]
        wanted = least + int(self._chance.random() * (most - least + 1)) if most > least else least
        taken = [self.of(self._take(choices), depth) for _ in range(min(wanted, len(choices)))]
        return separator.join(taken)

    def _take(self, choices: list[tuple[float, str]]) -> str:
        """Take one out, as probable as its weight says."""
        total = sum(weight for weight, _ in choices)
        point = self._chance.random() * total
        for index, (weight, _) in enumerate(choices):
            point -= weight
            if point < 0:
                return choices.pop(index)[1]
        return choices.pop()[1]


def _next_place(text: str, place: int) -> int:
    """Where the next thing may begin that is not plain text."""
    if text[place] == "\\":
        return place + 2
    match = _NEXT.search(text, place + 1)
    return match.start() if match else len(text)


def _groups(text: str) -> dict[int, int]:
    """Where each outermost pair of braces begins -> where it ends. What is never closed is text."""
    opened: list[int] = []
    pairs: dict[int, int] = {}
    for match in _TOKEN.finditer(text):
        if match.group() == "{":
            opened.append(match.start())
        elif match.group() == "}" and opened:
            pairs[opened.pop()] = match.start()
    return pairs


def _splits(text: str) -> bool:
    return any(match.group() in "{}|" for match in _TOKEN.finditer(text))


def _choices(inside: str) -> list[str]:
    """What stands between the bars, but not those within further braces."""
    choices: list[str] = []
    depth = begin = 0
    for match in _TOKEN.finditer(inside):
        sign = match.group()
        depth += (sign == "{") - (sign == "}" and depth > 0)
        if sign == "|" and not depth:
            choices.append(inside[begin : match.start()])
            begin = match.end()
    return [*choices, inside[begin:]]


def _weighed(choice: str) -> tuple[float, str]:
    match = _SHARE.match(choice)
    return (float(match.group(1)), choice[match.end() :]) if match else (1.0, choice)
