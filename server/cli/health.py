"""The command `health`: how the running server is, in a line and an exit code, for containers and scripts."""

from __future__ import annotations

from server.access.operator_socket import socket_path
from server.cli.errors import REFUSED, UNREACHABLE, CommandError
from server.cli.running_server import running_server
from server.config import StartError, load_settings

__all__ = ["health"]


def health() -> None:
    """Print the server's status.

    Raises:
        CommandError: it is `failed` or `draining`, or nobody answers.
    """
    try:
        folder = load_settings().server_folder
    except StartError as error:
        raise CommandError(str(error)) from None
    server = running_server(folder)
    if server is None:
        raise CommandError(f"no server answers at {socket_path(folder)}", UNREACHABLE)
    answer = server.health()
    told = f"{answer.get('status')}: {answer['reason']}" if answer.get("reason") else str(answer.get("status"))
    if answer.get("status") not in {"healthy", "loading", "degraded"}:
        raise CommandError(told, REFUSED)
    print(told)  # noqa: T201 -- the command's answer
