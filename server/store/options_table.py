"""The table of options that keys have set, in SQL. The caller gives connection and transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

import msgspec

__all__ = ["Option", "options_of", "put_options"]

Option = bool | int | float | str

_options = msgspec.json.Decoder(dict[str, Option])


def options_of(connection: sqlite3.Connection, key_id: str) -> dict[str, Option]:
    """What a key has set; nothing, if it never did."""
    row = connection.execute("SELECT options FROM key_options WHERE key_id = ?", (key_id,)).fetchone()
    return {} if row is None else _options.decode(row["options"])


def put_options(connection: sqlite3.Connection, key_id: str, changes: Mapping[str, Option]) -> dict[str, Option]:
    """Keep options of a key beside those that it has set before; all of them."""
    options = {**options_of(connection, key_id), **changes}
    connection.execute(
        "INSERT OR REPLACE INTO key_options (key_id, options) VALUES (?, ?)",
        (key_id, msgspec.json.encode(options).decode()),
    )
    return options
