"""The command `health`: health check of the running server, as a line and an exit code, for containers and scripts."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from server.access.operator_socket import socket_path
from server.cli.errors import REFUSED, UNREACHABLE, CommandError
from server.cli.output import say
from server.cli.server_client import command_settings, running_server

__all__ = ["health", "verdict"]


def health(_arguments: argparse.Namespace) -> None:
    """Print the server's status.

    Raises:
        CommandError: it is `failed` or `draining`, or none answers.
    """
    folder = command_settings().server_folder
    with running_server(folder) as server:
        if server is None:
            raise CommandError(f"no server responds at {socket_path(folder)}", UNREACHABLE)
        say(verdict(server.answer("GET", "/health").json()))


def verdict(answer: Mapping[str, object]) -> str:
    """The status in a line.

    Args:
        answer: the JSON of `GET /health`.

    Raises:
        CommandError: it cannot draw anything more.
    """
    line = f"{answer.get('status')}: {answer['reason']}" if answer.get("reason") else str(answer.get("status"))
    if answer.get("status") not in {"healthy", "loading", "degraded"}:
        raise CommandError(line, REFUSED)
    return line
