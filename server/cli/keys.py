"""The commands `keys create`, `list`, `rotate` and `revoke`. A key's text is all that they print on standard output
when there is one, so that `KEY=$(python -m server keys create --name me)` holds it; words go to standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from server.cli.errors import CommandError
from server.cli.jobs import as_table
from server.cli.key_desk import KeyDesk, key_desk
from server.config import Settings, StartError, load_settings

__all__ = ["create_key", "list_keys", "revoke_key", "rotate_key"]

_COLUMNS = ("ID", "NAME", "STATE", "SCOPES", "CREATED", "EXPIRES", "LAST USED")


def create_key(arguments: argparse.Namespace) -> None:
    """Make a key and print it, once."""
    with _desk() as (desk, settings):
        is_first = settings.api_key is None and not _taken(desk)
        key = desk.create(arguments.name, arguments.scope or ["generate", "read"], arguments.expires_days)
    expiry = f", until {key['expires_at']}" if key["expires_at"] else ""
    _tell(f"key {key['id']} ({key['name']}) may {', '.join(key['scopes'])}{expiry}; it is shown this once:")
    _print(key["text"])
    if is_first:
        _tell("it is the first key: from now on every caller needs one, programs on this machine too")


def list_keys(arguments: argparse.Namespace) -> None:
    """Print every key that was ever made, without its text."""
    with _desk() as (desk, _):
        keys = desk.all()
    if arguments.json:
        _print(json.dumps(keys, indent=2))  # escapes whatever is not ASCII, and so all that could steer a terminal
    elif keys:
        _print(as_table([_COLUMNS, *(_row(key) for key in keys)]))
    else:
        _tell("there are no keys")


def rotate_key(arguments: argparse.Namespace) -> None:
    """Give a key a new text and print that, once."""
    with _desk() as (desk, _):
        key = desk.rotate(arguments.id, arguments.grace_hours)
    old = f"until {key['old_until']}" if key["old_until"] else "no more"
    _tell(f"key {key['id']} ({key['name']}) has a new text, shown this once; the old one is taken {old}:")
    _print(key["text"])


def revoke_key(arguments: argparse.Namespace) -> None:
    """Take a key away for good."""
    with _desk() as (desk, settings):
        key = desk.revoke(arguments.id)
        is_last = settings.api_key is None and not _taken(desk)
    _print(f"{key['id']} is revoked")
    if is_last:
        _tell(
            "no key is left: a running server goes on to refuse everybody, and after its next start every program on "
            "this machine is served without a key, and nobody else"
        )


@contextlib.contextmanager
def _desk() -> Iterator[tuple[KeyDesk, Settings]]:
    try:
        settings = load_settings()
    except StartError as error:
        raise CommandError(str(error)) from None
    with key_desk(settings.server_folder) as desk:
        yield desk, settings


def _taken(desk: KeyDesk) -> bool:
    """Whether there is a key for which a server asks everybody for theirs."""
    return any(key["revoked_at"] is None for key in desk.all())


def _row(key: Mapping[str, Any]) -> tuple[str, ...]:
    state = f"{key['state']}, old text until {key['old_until']}" if key["old_until"] else key["state"]
    return (
        key["id"],
        key["name"],
        state,
        " ".join(key["scopes"]),
        key["created_at"],
        key["expires_at"] or "never",
        key["last_used_at"] or "never",
    )


def _print(text: str) -> None:
    print(text)  # noqa: T201 -- a command's answer


def _tell(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201 -- for whoever typed the command
