"""The class of an engine: a name for all that the bytes of its pictures depend on beside the request."""

from __future__ import annotations

import hashlib
import json

__all__ = ["engine_class_of"]


def engine_class_of(**facts: object) -> str:
    """The name: 16 hexadecimal digits, the same for the same facts.

    Args:
        facts: the model's digest, versions, device, types, rows of a call: each a plain value.
    """
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
