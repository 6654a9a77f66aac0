"""JSON -> the records of `models.py`, every type checked by msgspec: an answer that does not fit is a `BadAnswer`."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from semantic_bit_client.errors import BadAnswer

__all__ = ["decoded", "document_of"]

_T = TypeVar("_T")


def document_of(text: str | bytes) -> dict[str, Any]:
    """The JSON object that a text holds.

    Raises:
        BadAnswer: it is not JSON, or not an object.
    """
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (ValueError, RecursionError) as error:
        raise BadAnswer(f"the answer is not a JSON object: {error}") from None


def decoded(kind: type[_T], value: object, where: str = "the answer") -> _T:
    """The record of type `kind` that a JSON value describes. Members that it does not know are ignored.

    Args:
        kind: a dataclass of `models.py`, or anything that its fields are made of.
        value: as `document_of` gives it.
        where: what the value is called in an error.

    Raises:
        BadAnswer: a member is missing or of another type.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise BadAnswer(f"{where} cannot be read: {error}") from None
