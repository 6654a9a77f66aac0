"""API key checks: are keys required, and is there one?"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from server.access.network import is_loopback
from server.cli.doctor.data import looked_into
from server.cli.doctor.finding import Finding
from server.cli.errors import CommandError
from server.cli.server_client import running_server
from server.store.database import DATABASE_NAME

__all__ = ["look_at_keys"]


def look_at_keys(host: str, folder: Path, *, has_environment_key: bool) -> Iterator[Finding]:
    """Look at the keys, and whether HOST may be what it is with them.

    Args:
        host: the setting.
        folder: `DATA_DIR/server`; need not be there yet.
        has_environment_key: whether API_KEY is set.
    """
    try:
        num_keys = _num_keys(folder)
    except CommandError as error:
        yield Finding("keys", "warn", f"the keys cannot be read: {error}")
        return
    if has_environment_key or num_keys:
        kept = f"{num_keys} in the store" if num_keys else "none in the store"
        yield Finding("keys", "ok", f"callers need an API key: {'API_KEY is set, ' * has_environment_key}{kept}")
    elif is_loopback(host):
        yield Finding("keys", "ok", "no API keys: only requests from this machine are accepted")
    else:
        remedy = "python -m server keys create --name NAME; or set HOST=127.0.0.1"
        yield Finding("keys", "FAIL", f"HOST={host} is open to other machines, and there are no API keys", remedy)


def _num_keys(folder: Path) -> int:
    """Keys that were not revoked."""
    with running_server(folder) as server:
        if server is not None:
            return sum(key["revoked_at"] is None for key in server.ask("GET", "/v1/keys")["keys"])
    database = folder / DATABASE_NAME
    if not database.exists():
        return 0
    try:
        with looked_into(database) as connection:
            counted: int = connection.execute("SELECT count(*) FROM api_keys WHERE revoked_at IS NULL").fetchone()[0]
    except (OSError, sqlite3.Error):  # an older store; `look_at_data` tells of a damaged one
        return 0
    return counted
