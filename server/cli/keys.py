"""The commands `keys create`, `list`, `rotate` and `revoke`. A key's text is all that they print on standard output
when there is one, so that `KEY=$(python -m server keys create --name me)` holds it; words go to standard error.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from server.cli.output import as_json, as_table, say, say_note
from server.cli.server_client import ServerClient, any_server, command_settings

__all__ = ["create_key", "list_keys", "revoke_key", "rotate_key"]

_COLUMNS = ("ID", "NAME", "STATE", "SCOPES", "CREATED", "EXPIRES", "LAST USED")


def create_key(arguments: argparse.Namespace) -> None:
    """Make a key and print it, once."""
    body = {
        "name": arguments.name,
        "scopes": arguments.scope or ["generate", "read"],
        "expires_days": arguments.expires_days,
        "take_over_local": arguments.take_over_local,
    }
    settings = command_settings()
    with any_server(settings, makes_folder=True) as server:
        is_first = settings.api_key is None and not _is_key_needed(server)
        has_jobs = is_first and bool(server.ask("GET", "/v1/jobs", params={"limit": 1})["jobs"])
        key = server.ask("POST", "/v1/keys", json=body)
    scopes = f"{'scope' if len(key['scopes']) == 1 else 'scopes'} {', '.join(key['scopes'])}"
    expiry = f" and expires at {key['expires_at']}" if key["expires_at"] else ""
    say_note(f"key {key['id']} ({key['name']}) has the {scopes}{expiry}; it is shown this once:")
    say(key["text"])
    if is_first:
        say_note("it is the first key: from now on every caller needs one, programs on this machine too")
    if has_jobs and not arguments.take_over_local:
        say_note(
            "the jobs that were drawn without a key are hidden from now on, but for keys with the scope admin: "
            "create the key with --take-over-local to give them to it"
        )


def list_keys(arguments: argparse.Namespace) -> None:
    """Print every key that was ever made, without its text."""
    with any_server(command_settings(), makes_folder=True) as server:
        keys = server.ask("GET", "/v1/keys")["keys"]
    if arguments.json:
        say(as_json(keys))
    elif keys:
        say(as_table([_COLUMNS, *(_row(key) for key in keys)]))
    else:
        say_note("there are no keys")


def rotate_key(arguments: argparse.Namespace) -> None:
    """Give a key a new text and print that, once."""
    with any_server(command_settings(), makes_folder=True) as server:
        key = server.ask("POST", f"/v1/keys/{arguments.id}/rotate", json={"grace_hours": arguments.grace_hours})
    old = f"until {key['old_until']}" if key["old_until"] else "no more"
    say_note(f"key {key['id']} ({key['name']}) has a new text, shown this once; the old one is taken {old}:")
    say(key["text"])


def revoke_key(arguments: argparse.Namespace) -> None:
    """Take a key away for good."""
    settings = command_settings()
    with any_server(settings, makes_folder=True) as server:
        key = server.ask("POST", f"/v1/keys/{arguments.id}/revoke")
        is_last = settings.api_key is None and not _is_key_needed(server)
    say(f"{key['id']} is revoked")
    if is_last:
        say_note(
            "no key is left: a running server goes on to refuse everybody, and after its next start every program on "
            "this machine is served without a key, and nobody else"
        )


def _is_key_needed(server: ServerClient) -> bool:
    return any(key["revoked_at"] is None for key in server.ask("GET", "/v1/keys")["keys"])


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
