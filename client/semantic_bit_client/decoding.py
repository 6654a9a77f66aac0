"""JSON -> the records of `models.py`, every type checked: what does not fit is no answer of this server."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final, Literal, NoReturn, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from semantic_bit_client.errors import BadAnswer

__all__ = ["decoded", "document_of"]

_T = TypeVar("_T")

_JSON_TYPES: Final[Mapping[object, set[type]]] = MappingProxyType(
    {bool: {bool}, int: {int}, float: {int, float}, str: {str}, types.NoneType: {types.NoneType}}
)
"""What a field may come as. True is no number here."""
_FROM_TEXT: Final[Mapping[object, Callable[[str], object]]] = MappingProxyType(
    {date: date.fromisoformat, datetime: datetime.fromisoformat, Decimal: Decimal}
)
"""Types that come as text, and what reads it."""
_WHOLE: Final = "the answer"


def document_of(text: str | bytes) -> dict[str, Any]:
    """The JSON object that a text is.

    Raises:
        BadAnswer: it is none.
    """
    try:
        document = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise BadAnswer(f"the answer is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise BadAnswer(f"the answer is no JSON object but {_named(document)}")
    return document


def decoded(kind: type[_T], value: object, where: str = _WHOLE) -> _T:
    """The record of type `kind` that a JSON value describes. Members that it does not know are ignored.

    Args:
        kind: a dataclass of `models.py`, or anything that its fields are made of.
        value: as `json.loads` gives it.
        where: what the value is called in an error.

    Raises:
        BadAnswer: a member is missing or of another type.
    """
    return cast(_T, _decoded(kind, value, where))


def _decoded(kind: Any, value: object, where: str) -> object:  # noqa: ANN401 -- a type, or a form of `typing`
    origin = get_origin(kind)
    if dataclasses.is_dataclass(kind):
        return _decoded_record(kind, value, where)
    if origin in {Union, types.UnionType}:
        # Of several types, only plain ones are ever offered together.
        choices = get_args(kind)
        return _decoded(type(value) if type(value) in choices else choices[0], value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_decoded(get_args(kind)[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if kind in _FROM_TEXT and isinstance(value, str):
        return _decoded_text(_FROM_TEXT[kind], value, where)
    if origin is Literal and isinstance(value, str) and value in get_args(kind):
        return value
    if type(value) in _JSON_TYPES.get(kind, ()):
        return _decoded_number(cast(float, value), where) if kind is float else value
    raise BadAnswer(f"{where} should not be {_named(value)}")


def _decoded_record(kind: Any, value: object, where: str) -> object:  # noqa: ANN401 -- any dataclass
    if not isinstance(value, dict):
        raise BadAnswer(f"{where} should not be {_named(value)}")
    members: dict[str, object] = {}
    for field in dataclasses.fields(kind):
        if field.name in value:
            name = field.name if where == _WHOLE else f"{where}.{field.name}"
            members[field.name] = _decoded(_types_of(kind)[field.name], value[field.name], name)
        elif field.default is dataclasses.MISSING:
            raise BadAnswer(f"{where} has no {field.name}")
    return kind(**members)


def _decoded_number(value: float, where: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise BadAnswer(f"{where} should not be {_named(value)}")
    return number


def _decoded_text(read: Callable[[str], object], value: str, where: str) -> object:
    try:
        return read(value)
    except (ArithmeticError, ValueError):
        raise BadAnswer(f"{where} should not be {_named(value)}") from None


@functools.cache
def _types_of(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _named(value: object) -> str:
    """A value, short enough for an error."""
    told = repr(value)
    return told if len(told) <= 40 else f"{told[:40]}..."
