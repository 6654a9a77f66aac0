"""Checks HOST at the start: an address that other machines can reach needs API keys."""

from __future__ import annotations

from pathlib import Path

from server.access.network import is_loopback
from server.config import Settings, StartError
from server.store import key_table
from server.store.database import DATABASE_NAME, database_opened
from server.store.errors import StoreError

__all__ = ["refuse_open_host"]


def refuse_open_host(settings: Settings) -> None:
    """Refuse to start on an address that other machines reach, while no API key exists.

    Raises:
        StartError: HOST is not a loopback address, and there are no keys; or whether there are cannot be read.
    """
    if is_loopback(settings.host) or settings.api_key is not None or _has_key(settings.server_folder):
        return
    raise StartError(
        f"HOST must be a loopback address while the server has no API keys, not {settings.host!r}: create one with "
        "`python -m server keys create --name NAME`, or set HOST=127.0.0.1 and reach it from elsewhere through an SSH "
        "tunnel"
    )


def _has_key(folder: Path) -> bool:
    """Whether the store has a key that was not revoked. Where there is no store, none is made."""
    if not (folder / DATABASE_NAME).exists():
        return False
    try:
        with database_opened(folder, is_checked=False) as connection:
            return any(key.revoked_at is None for key in key_table.keys(connection))
    except StoreError as error:
        raise StartError(f"DATA_DIR: {error}") from None
