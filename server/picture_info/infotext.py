"""From parameters to an information text, and from such a text, whoever wrote it, to the fields of a request.

What A1111's keys cannot say stands behind them under the API's own names, so that nothing is lost on the way there and
back. Nothing in a text changes between two drawings: no time, no id.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from engine.params import GenerationParams
from server.picture_info.a1111_keys import fields_of, pairs_of
from server.picture_info.fields import PICTURE_FIELDS, JsonValue, request_fields
from server.picture_info.grammar import MAX_TEXT_BYTES, InfoText, compose, parse

__all__ = ["ReadInfo", "info_text", "read_info"]

_VERSION: Final = ("Version", "Semantic Bit")
"""Without a number: the bytes of a file do not change with a release that draws the same."""
_OWN_KEY: Final = re.compile(r"[a-z][a-z0-9_]*")
"""The name of a field; A1111's keys begin with a capital letter."""
_PLAIN: Final = re.compile(r"(?!(?:true|false|null)$)[A-Za-z][\w .+-]*(?<! )", re.ASCII)
"""A text that is written without the quotes of JSON."""
_PICTURE: Final = re.compile(r"([0-9a-f]{64}) ([0-9]{1,5})x([0-9]{1,5})")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadInfo:
    """An information text, read."""

    fields: Mapping[str, JsonValue]
    """Of a request, as far as the text says them. Their values may be any."""
    unknown: Mapping[str, str]
    """Keys that no field stands for, with their values."""


def info_text(params: GenerationParams, model_name: str, model_hash: str | None = None) -> str | None:
    """The text for one picture; None if it would be too long.

    Args:
        params: of that picture (`GenerationParams.of_image`).
        model_name: what drew it.
        model_hash: of that model; None: left out.
    """
    fields = request_fields(params)
    hashes = [] if model_hash is None else [("Model hash", model_hash)]
    pairs = [*pairs_of(fields), *hashes, ("Model", model_name), _VERSION]
    parts = InfoText(prompt=fields["prompt"], negative_prompt=fields["negative_prompt"], pairs=tuple(pairs))
    # The keys of A1111 are enough for most requests; what they lose is seen by reading them.
    found = read_info(compose(parts)).fields
    own = {name: value for name, value in fields.items() if found.get(name) != value}
    own |= {name: None for name in found if name not in fields}
    more = [(name, _own_value(name, value)) for name, value in own.items()]
    text = compose(InfoText(prompt=parts.prompt, negative_prompt=parts.negative_prompt, pairs=(*pairs, *more)))
    return text if len(text.encode()) <= MAX_TEXT_BYTES else None


def read_info(text: str) -> ReadInfo:
    """Read a text of this program, of A1111, or of one that writes as it does."""
    parts = parse(text)
    own = {key: value for key, value in parts.pairs if _OWN_KEY.fullmatch(key)}
    fields, unknown = fields_of({key: value for key, value in parts.pairs if key not in own})
    prompts = {"prompt": parts.prompt, "negative_prompt": parts.negative_prompt}
    fields = {**prompts, **fields}
    for name, value in own.items():
        try:
            fields[name] = _read_own_value(name, value)
        except ValueError:
            unknown[name] = value
    return ReadInfo(
        fields={name: value for name, value in fields.items() if value is not None},
        unknown={key: value for key, value in unknown.items() if (key, value) != _VERSION},
    )


def _own_value(name: str, value: JsonValue) -> str:
    if name in PICTURE_FIELDS and value is not None:
        return f"{value['sha256']} {value['width']}x{value['height']}"
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _read_own_value(name: str, text: str) -> JsonValue:
    """The value of a field.

    Raises:
        ValueError: it is not one.
    """
    if name in PICTURE_FIELDS:
        found = _PICTURE.fullmatch(text)
        if found is None:
            raise ValueError(text)
        return {"sha256": found[1], "width": int(found[2]), "height": int(found[3])}
    if _PLAIN.fullmatch(text):
        return text
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError(text) from None


def _refuse(constant: str) -> None:
    raise ValueError(constant)
