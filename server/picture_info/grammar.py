"""AUTOMATIC1111's grammar of an information text: prompt, negative prompt, a last line of `Key: value` pairs.

Source: `modules/infotext_utils.py` of stable-diffusion-webui 1.10, of which this is written anew. What its keys mean is
in `a1111_keys.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

__all__ = ["MAX_TEXT_BYTES", "InfoText", "compose", "parse"]

MAX_TEXT_BYTES: Final = 2**16
"""In UTF-8. Longer texts are neither written nor read."""

_NEGATIVE: Final = "Negative prompt:"
_MIN_PAIRS: Final = 3
"""Fewer in the last line, and it is prompt."""
# Keys are bounded so that a long line without a colon is read in linear time.
_PAIR: Final = re.compile(r'(\w[\w /-]{1,63}):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')


@dataclass(frozen=True, slots=True, kw_only=True)
class InfoText:
    """An information text in its parts."""

    prompt: str
    negative_prompt: str = ""
    pairs: tuple[tuple[str, str], ...] = ()
    """Key and value of the last line, in order, unquoted."""


def parse(text: str) -> InfoText:
    """Split a text. Whatever it is, it is some prompt at least."""
    *lines, last = text.strip().split("\n")
    pairs = _PAIR.findall(last)
    if len(pairs) < _MIN_PAIRS:
        lines, pairs = [*lines, last], []
    prompt: list[str] = []
    negative_prompt: list[str] = []
    part = prompt
    for line in map(str.strip, lines):
        if line.startswith(_NEGATIVE):
            part = negative_prompt
            part.append(line.removeprefix(_NEGATIVE).strip())
        else:
            part.append(line)
    return InfoText(
        prompt=_joined(prompt),
        negative_prompt=_joined(negative_prompt),
        pairs=tuple((key, _unquoted(value.strip())) for key, value in pairs),
    )


def compose(parts: InfoText) -> str:
    """Write a text; `parse` gives the same pairs, and most prompts as they were."""
    lines = [parts.prompt]
    if parts.negative_prompt:
        lines.append(f"{_NEGATIVE} {parts.negative_prompt}")
    lines.append(", ".join(f"{key}: {_quoted(value)}" for key, value in parts.pairs))
    return "\n".join(lines)


def _joined(lines: Iterable[str]) -> str:
    """Lines as one text. Empty ones at the beginning are lost, as in the original."""
    joined = ""
    for line in lines:
        joined += ("\n" if joined else "") + line
    return joined


def _quoted(value: str) -> str:
    if value == value.strip() and not value.startswith('"') and not any(mark in value for mark in ",\n:"):
        return value
    return json.dumps(value, ensure_ascii=False)


def _unquoted(value: str) -> str:
    if len(value) < 2 or value[0] != '"' or value[-1] != '"':
        return value
    try:
        found = json.loads(value)
    except ValueError:
        return value
    return found if isinstance(found, str) else value
