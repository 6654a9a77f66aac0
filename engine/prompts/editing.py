"""Prompt editing and alternation: `[a:b:0.5]`, `[a|b]` -> which text is told at which call, as A1111 reads it.

No torch. The time is linear in the length of a prompt times the number of its changes, whatever is in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from engine.prompts.errors import PromptError

__all__ = ["MAX_CHANGES", "Schedule", "read_schedule"]

MAX_CHANGES: Final = 64
"""Places of one prompt that change while it is drawn."""

Schedule = tuple[tuple[int, str], ...]
"""(last call, text), in order: the text at call c, counted from 0, is the first one whose last call is not before c."""

# A backslash makes the next character a plain one, but not the end of a line: there the prompt is taken literally.
_TOKEN: Final = re.compile(r"[\[\]():|]|(?:[^\\\[\]():|]|\\.)+|\\")
_NUMBER: Final = re.compile(r"\s*([+-]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?)\s*")


@dataclass(frozen=True, slots=True)
class _Edit:
    before: list[_Node]
    after: list[_Node]
    when: str


@dataclass(frozen=True, slots=True)
class _Alternation:
    choices: list[list[_Node]]


_Node = str | _Edit | _Alternation


@dataclass(slots=True)
class _Open:
    """A bracket that is still open, and what has been read in it."""

    bracket: str
    parts: list[list[_Node]] = field(default_factory=lambda: [[]])
    separators: list[str] = field(default_factory=list)

    def add(self, nodes: Iterable[_Node]) -> None:
        """Read on. Neighbouring texts become one: brackets in brackets would otherwise be copied piece by piece."""
        last = self.parts[-1]
        for node in nodes:
            if isinstance(node, str) and last and isinstance(last[-1], str):
                last[-1] += node
            else:
                last.append(node)

    @property
    def literally(self) -> Iterator[_Node]:
        """Its parts as they were written."""
        yield self.bracket
        for index, part in enumerate(self.parts):
            yield from self.separators[index - 1 : index] if index else ()
            yield from part


def read_schedule(text: str, num_steps: int, num_steps_before: int | None = None) -> Schedule:
    """Read which text is told when.

    A moment with a point is a share of the steps, one without is a step. What is not well-formed is text.

    Args:
        text: a prompt.
        num_steps: of what is drawn.
        num_steps_before: in a second leg, steps of the first one: whole moments then count from the first leg's first
            step, and shares of the second one lie between 1 and 2.

    Raises:
        PromptError: it changes at too many places.
    """
    nodes = _parse(text)
    if nodes is None:
        return ((num_steps, text),)
    moments: dict[int, int] = {}
    ends = {num_steps}
    for change in _changes(nodes):
        if isinstance(change, _Alternation):
            ends |= set(range(1, num_steps + 1))
        else:
            moments[id(change)] = moment = _moment(change.when, num_steps, num_steps_before)
            ends |= {moment} if moment >= 1 else set()
    return tuple((end, "".join(_told(nodes, end, moments))) for end in sorted(ends))


def _moment(when: str, num_steps: int, num_steps_before: int | None) -> int:
    value = float(when)
    if "." in when:
        value = (value - (num_steps_before is not None)) * num_steps
    else:
        value -= num_steps_before or 0
    return int(max(-1.0, min(float(num_steps), value)))


def _parse(text: str) -> list[_Node] | None:
    """The text and its changes; None if it is to be taken literally as a whole."""
    root = _Open("")
    opened = [root]
    num_changes = 0
    for match in _TOKEN.finditer(text):
        sign, top = match.group(), opened[-1]
        if sign == "\\" or (sign == "|" and top.bracket != "["):
            return None
        if sign in "[(":
            opened.append(_Open(sign))
        elif sign == "|" or (sign == ":" and top is not root):
            top.separators.append(sign)
            top.parts.append([])
        elif sign in "])" and top is not root:
            nodes = _closed(top, sign)
            if nodes is not None:
                opened.pop()
                opened[-1].add(nodes)
                num_changes += not isinstance(nodes[0], str)
                if num_changes > MAX_CHANGES:
                    raise PromptError(f"must change at no more than {MAX_CHANGES} places")
            elif not _give_up(opened):
                return None
            else:
                root.add([sign])
        else:
            top.add([sign])
    return root.parts[0] if _give_up(opened) else None


def _give_up(opened: list[_Open]) -> bool:
    """No open bracket can be a change any more: what was read in them belongs to the text outside.

    Returns:
        Whether that can be: outside of changes there must be no bar.
    """
    root = opened[0]
    for bracket in opened[1:]:
        root.add(bracket.literally)
    can_be = not any("|" in bracket.separators for bracket in opened)
    del opened[1:]
    return can_be


def _closed(top: _Open, sign: str) -> list[_Node] | None:
    """What a bracket is, now that it is closed; None if that is not well-formed."""
    separators, parts = top.separators, top.parts
    if top.bracket + sign == "()" and separators in ([], [":"]):
        return [*top.literally, sign]
    if top.bracket + sign != "[]":
        return None
    if not separators:
        return [*top.literally, sign]
    if "|" in separators:
        return None if ":" in separators else [_Alternation(parts)]
    when = _NUMBER.fullmatch(parts[-1][0]) if len(parts[-1]) == 1 and isinstance(parts[-1][0], str) else None
    if when is None or len(parts) > 3:
        return None
    return [_Edit(parts[0] if len(parts) == 3 else [], parts[-2], when.group(1))]


def _changes(nodes: list[_Node]) -> Iterator[_Edit | _Alternation]:
    """All changes, those within others too."""
    pending = [nodes]
    while pending:
        for node in pending.pop():
            if not isinstance(node, str):
                yield node
                pending += [node.before, node.after] if isinstance(node, _Edit) else node.choices


def _told(nodes: list[_Node], call: int, moments: dict[int, int]) -> Iterator[str]:
    """The text at one call, counted from 1. No deeper than `MAX_CHANGES`."""
    for node in nodes:
        if isinstance(node, str):
            yield node
        elif isinstance(node, _Alternation):
            yield from _told(node.choices[(call - 1) % len(node.choices)], call, moments)
        else:
            yield from _told(node.before if call <= moments[id(node)] else node.after, call, moments)
