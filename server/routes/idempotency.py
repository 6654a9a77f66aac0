"""Idempotency keys: a request repeated with the same `Idempotency-Key` is the same job. (`store` finds repeats.)"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from fastapi import Request
from pydantic import BaseModel

from server.errors import IdempotencyKeyError

__all__ = ["IDEMPOTENCY_HEADER", "idempotency_key", "request_digest"]

IDEMPOTENCY_HEADER: dict[str, Any] = {
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "description": "A repeat with the same key and body returns the same job and draws nothing again",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
        }
    ]
}

_KEY = re.compile(r"[!-~]{1,255}")


def idempotency_key(request: Request) -> str | None:
    """The caller's key for this request and its repeats, if there is one.

    Raises:
        IdempotencyKeyError: it cannot be used.
    """
    keys = request.headers.getlist("idempotency-key")
    if not keys:
        return None
    if len(keys) != 1 or not _KEY.fullmatch(keys[0]):
        raise IdempotencyKeyError(
            "the header Idempotency-Key must be sent once, with 1 to 255 printable ASCII characters and no spaces"
        )
    return keys[0]


def request_digest(body: BaseModel, api: str = "") -> bytes:
    """A digest of the parsed body: a repeat has the same one, another request under the same key has not.

    Args:
        body: as it was understood.
        api: whose request it was; empty: ours.
    """
    return hashlib.sha256(api.encode() + body.model_dump_json(exclude_none=True).encode()).digest()
