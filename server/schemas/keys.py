"""The JSON of API keys, as the operator's command line sends and gets it. Never in the public OpenAPI document."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from server.store.api_keys import ApiKey, KeyState, Scope

__all__ = ["KeyList", "KeyRequest", "KeyRotation", "KeyView", "KeyWithText"]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class KeyRequest(_Asked):
    """What a new key should be."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    scopes: Annotated[list[Scope], Field(min_length=1)]
    expires_days: Annotated[float, Field(gt=0, le=36_500, allow_inf_nan=False)] | None = None
    """Days from now; null: never."""
    take_over_local: bool = False
    """Whether the jobs that were drawn and ended while there were no keys become this key's."""


class KeyRotation(_Asked):
    """How a key gets its new text."""

    grace_hours: Annotated[float, Field(ge=0, le=8760, allow_inf_nan=False)]
    """Hours that the old one is taken as well."""


class KeyView(BaseModel):
    """What is known of a key. Times are RFC 3339, UTC."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    id: str
    name: str
    state: KeyState
    scopes: list[Scope]
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None
    """To the minute."""
    old_until: str | None
    """Until when its text before the last rotation is taken as well; null if it is not."""

    @classmethod
    def of(cls, key: ApiKey) -> KeyView:
        """The JSON view of a key."""
        now = time.time()
        is_old_taken = key.old_until is not None and now < key.old_until and key.state(now) == "active"
        return cls(
            id=key.id,
            name=key.name,
            state=key.state(now),
            scopes=sorted(key.scopes),
            created_at=_timestamp(key.created_at),
            expires_at=_timestamp_if(key.expires_at),
            revoked_at=_timestamp_if(key.revoked_at),
            last_used_at=_timestamp_if(key.last_used_at),
            old_until=_timestamp_if(key.old_until) if is_old_taken else None,
        )


class KeyList(BaseModel):
    """Every key that was ever made, oldest first."""

    keys: list[KeyView]


class KeyWithText(KeyView):
    """A key whose text is shown: this once."""

    text: str

    @classmethod
    def with_text(cls, key: ApiKey, text: str) -> KeyWithText:
        """The JSON view of a key and its new text."""
        return cls(**KeyView.of(key).model_dump(), text=text)


def _timestamp(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _timestamp_if(unix_s: float | None) -> str | None:
    return None if unix_s is None else _timestamp(unix_s)
