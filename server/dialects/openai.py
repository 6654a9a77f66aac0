"""Errors as the OpenAI API says them: `{"error": {"message", "type", "param", "code"}}`, and whether to retry.

Source: openai-python 3.57, `_base_client.py` (retries) and `_exceptions.py` (classes by status).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from server.dialects.base import Dialect, Said, renamed
from server.schemas.generation import Problem

__all__ = ["OPENAI"]

_NAMES: Final[Mapping[str, str]] = MappingProxyType({"num_images": "n", "width": "size", "height": "size"})
_STATUSES: Final[Mapping[int, int]] = MappingProxyType({422: 400, 406: 400})
"""Ours -> theirs; others are the same."""
_TYPES: Final[Mapping[int, str]] = MappingProxyType(
    {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
)
_CODES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "unauthorized": "invalid_api_key",
        "malformed_body": "invalid_json",
        "rate_limited": "rate_limit_exceeded",
        "queue_full": "overloaded",
        "draining": "overloaded",
        "too_many_uploads": "overloaded",
        "invalid_request": "invalid_value",
    }
)
_RULES: Final[Mapping[str, str]] = MappingProxyType(
    {"is not a field of this request": "unknown_parameter", "is required": "missing_required_parameter"}
)
_RETRIED: Final = frozenset({408, 409, 429})
"""Statuses below 500 that their client sends again by itself, twice."""


_SCHEMA: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "type": "object",
        "properties": {
            "error": {
                "type": "object",
                "properties": {
                    "message": {"type": "string"},
                    "type": {"type": "string"},
                    "param": {"type": ["string", "null"]},
                    "code": {"type": ["string", "null"]},
                },
                "required": ["message", "type", "param", "code"],
            }
        },
        "required": ["error"],
    }
)


def _speaks(_method: str, path: str) -> bool:
    return path.startswith(("/v1/images/", "/v1/models/")) or path == "/v1/models"


def _say(problem: Problem) -> Said:
    message, field = renamed(problem, _NAMES)
    status = _STATUSES.get(problem.status, problem.status)
    code = _CODES.get(problem.code, problem.code)
    if problem.errors and problem.code == "invalid_request":
        code = _RULES.get(problem.errors[0].rule, code)
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    error = {"message": message, "type": kind, "param": field, "code": code}
    headers = {}
    if status >= 500 or status in _RETRIED:
        # A retry draws anew, since their clients send no Idempotency-Key: only where nothing has been drawn yet.
        headers["x-should-retry"] = "true" if problem.retry_after is not None and status != 504 else "false"
    return Said(status, {"error": error}, headers)


OPENAI: Final = Dialect("openai", _speaks, _say, _SCHEMA)
