"""The `responses` of routes in the OpenAPI description: the problem document of every error, and picture files."""

from __future__ import annotations

from typing import Any

from server.problems import PROBLEM_MEDIA_TYPE
from server.schemas.generation import MEDIA_TYPES

__all__ = ["PICTURE_FILES", "problem", "problems"]

PICTURE_FILES: dict[str, Any] = {
    media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in MEDIA_TYPES
}
"""The `content` of an answer that is a picture."""

_DESCRIPTIONS = {
    400: "The body is not valid JSON",
    404: "There is no such job, or it belongs to another key",
    406: "`Accept` allows none of the available media types",
    409: "The job's state does not allow it",
    410: "The pictures have expired",
    413: "The body is too large",
    415: "`Content-Type` is not JSON",
    422: "A value is invalid; `errors` names field, rule and value",
    503: "The queue is full, the model cannot be served, storage is unavailable, or the server is shutting down",
    504: "Not finished within `REQUEST_TIMEOUT`, queueing included",
}


def problem(description: str) -> dict[str, Any]:
    """An error of an operation, for its `responses`."""
    content = {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {"description": description, "content": content}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of an operation, each in the usual words, for its `responses`."""
    return {status: problem(_DESCRIPTIONS[status]) for status in statuses}
