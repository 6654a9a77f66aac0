"""The table of API keys, in SQL. The caller gives connection and transaction; the table is in `database_schema.py`."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

import msgspec

from server.store.api_keys import ApiKey, Scope

__all__ = ["keys", "note_uses", "put"]

_scopes = msgspec.json.Decoder(frozenset[Scope])


def keys(connection: sqlite3.Connection) -> list[ApiKey]:
    """Every key that was ever made, oldest first."""
    rows = connection.execute("SELECT * FROM api_keys ORDER BY created_at, id").fetchall()
    return [ApiKey(**{**dict(row), "scopes": _scopes.decode(row["scopes"])}) for row in rows]


def put(connection: sqlite3.Connection, key: ApiKey) -> None:
    """Keep a key, new or changed."""
    connection.execute(
        "INSERT OR REPLACE INTO api_keys (id, name, digest, scopes, created_at, expires_at, revoked_at, last_used_at,"
        " old_digest, old_until) VALUES (:id, :name, :digest, :scopes, :created_at, :expires_at, :revoked_at,"
        " :last_used_at, :old_digest, :old_until)",
        msgspec.structs.asdict(key) | {"scopes": msgspec.json.encode(sorted(key.scopes)).decode()},
    )


def note_uses(connection: sqlite3.Connection, uses: Mapping[str, float]) -> None:
    """Keep when keys were last used: id -> Unix seconds."""
    connection.executemany(
        "UPDATE api_keys SET last_used_at = ? WHERE id = ?", [(at, key_id) for key_id, at in uses.items()]
    )
