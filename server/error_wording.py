"""Wording of validation errors: field, rule and value, in one line that any terminal, log and JSON parser can take."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["harmless", "path_without_secrets", "rule_of", "shortened", "without_folders"]

LONGEST_VALUE = 80
"""Characters of a caller's value that are ever repeated back."""
LONGEST_WORD = 31
"""Characters of text that can be no API key: those have 32 and more."""

_PATH_SEGMENT = re.compile(rf"[\w.~-]{{0,{LONGEST_WORD}}}", re.ASCII)
_LONGEST_PATH = 200
_THEIR_SUBJECT = re.compile(r"\b(?:Input|String|List|Tuple) should ")
_LENGTH_FOUND = re.compile(r" after validation, not \d+$")
_FOLDERS = re.compile(r"(?<![\w./:])/(?:[^/\s:;,'\"()]+/)+(?=[^/\s])")

_RULES = {
    "missing": "is required",
    "extra_forbidden": "is not a field of this request",
    "json_invalid": "must be valid JSON",
    "model_attributes_type": "must be a JSON object",
    "model_type": "must be a JSON object",
    "dict_type": "must be a JSON object",
    "string_unicode": "must not contain lone surrogates",
    "int_type": "must be an integer",
    "int_from_float": "must be an integer",
    "int_parsing": "must be an integer",
    "int_parsing_size": "must be an integer of reasonable size",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "string_type": "must be a string",
}
"""pydantic's error types -> our phrase, where its own would not read well after the field's name."""


def rule_of(finding: Mapping[str, Any]) -> str:
    """What holds for every legal value, as a phrase after the field's name, from one of pydantic's errors."""
    phrase = _RULES.get(finding["type"])
    if phrase is not None:
        return phrase
    message = _LENGTH_FOUND.sub("", str(finding["msg"]).removeprefix("Value error, "))
    return _THEIR_SUBJECT.sub("must ", message)


def shortened(value: object) -> str | int | float | bool | None:
    """A caller's value, fit to be repeated in JSON: never long, never NaN, nothing that UTF-8 cannot carry."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and abs(value) < 2**53:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, int):
        return f"an integer of about {max(1, int(value.bit_length() * math.log10(2)))} digits"
    if isinstance(value, str):
        return _cut(value)
    if isinstance(value, bytes | bytearray):
        return f"{len(value)} bytes"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return f"an object of {len(value)}"
    return _cut(str(value))


def harmless(value: object) -> str | int | float | bool | None:
    """A caller's value as `shortened` has it, but of text that could be a key only its length."""
    if isinstance(value, str) and len(value) > LONGEST_WORD:
        return f"a text of {len(value)} characters"
    return shortened(value)


def path_without_secrets(path: str) -> str:
    """A path, safe to be logged and repeated: what could be a key or a prompt put there by mistake becomes `*`."""
    cut = path if len(path) <= _LONGEST_PATH else f"{path[:_LONGEST_PATH]}\x00"
    return "/".join(part if _PATH_SEGMENT.fullmatch(part) else "*" for part in cut.split("/"))


def without_folders(text: str, folder: str) -> str:
    """A reason that names files, fit to show to callers: in the model's folder from there on, else only their names."""
    for known in (folder.rstrip("/"), str(Path(folder).expanduser().resolve())):
        text = text.replace(f"{known}/", "").replace(known, Path(known).name)
    return _FOLDERS.sub("", text)


def _cut(text: str) -> str:
    # Escaped before it is cut, so that what is repeated is short however it is made.
    start = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[: LONGEST_VALUE + 1])
    return start if len(start) <= LONGEST_VALUE else start[:LONGEST_VALUE] + "…"
