"""Strict JSON: no name twice in an object, no endless number. Knows nothing of HTTP."""

from __future__ import annotations

import json
import re
from typing import Final

__all__ = ["RepeatedNameError", "strict_json"]

_NAME: Final = re.compile(r"[\w-]{1,31}", re.ASCII)
"""Short enough to be no API key and no prompt."""
_MOST_DIGITS: Final = 400
"""Of a number. Python itself refuses to read more than 4,300, and in words of its own."""


class RepeatedNameError(Exception):
    """An object has a name twice. The message is written for the caller."""


def strict_json(text: bytes) -> object:
    """Read JSON.

    Raises:
        json.JSONDecodeError: it is not JSON.
        UnicodeDecodeError: nor text.
        RecursionError: nested too deeply.
        RepeatedNameError: an object in it has a name twice.
    """
    found: object = json.loads(text, object_pairs_hook=_without_repeats, parse_int=_bounded)
    return found


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        shown = repr(twice) if _NAME.fullmatch(twice) else "a name"
        raise RepeatedNameError(f"the body must contain each name once; {shown} appears more than once")
    return found


def _bounded(digits: str) -> int:
    return int(digits[:_MOST_DIGITS])  # as wrong as the whole, whatever is asked for
