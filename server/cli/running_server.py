"""What the command line asks of a server that runs: HTTP over the operator's unix socket."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, urlencode

from server.access.operator_socket import connect_to, socket_path
from server.cli.errors import UNREACHABLE, CommandError

__all__ = ["NobodyListensError", "RunningServer", "running_server"]

_TIMEOUT_S = 10.0
_BACKUP_TIMEOUT_S = 600.0
"""Copying ten million jobs from a slow disk."""
_PAGE = 100
"""Jobs asked for at once."""


def running_server(folder: Path) -> RunningServer | None:
    """The server that has `DATA_DIR/server`; None if none runs.

    Raises:
        CommandError: there may be one, but not for this user.
    """
    server = RunningServer(socket_path(folder))
    try:
        server.check()
    except NobodyListensError:
        return None
    except PermissionError:
        raise CommandError(
            f"{folder} belongs to another user: run this as the user that the server runs as", UNREACHABLE
        ) from None
    return server


class NobodyListensError(Exception):
    """No server has its socket there."""


class RunningServer:
    """A server at the other end of the socket at `path`. Each question is a connection of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def check(self) -> None:
        """Make sure that somebody listens.

        Raises:
            NobodyListensError: nobody does.
            PermissionError: somebody might, but not to this user.
        """
        try:
            connect_to(self._path, _TIMEOUT_S).close()
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            raise NobodyListensError from None
        except PermissionError:
            raise
        except OSError as error:
            raise CommandError(f"the server at {self._path} cannot be reached: {error}", UNREACHABLE) from None

    def page(self, *, statuses: list[str], user: str | None, limit: int) -> list[dict[str, Any]]:
        """See `JobDesk.page`."""
        jobs: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            asked: list[tuple[str, object]] = [("status", status) for status in statuses]
            asked += [("user", user)] * (user is not None) + [("cursor", cursor)] * (cursor is not None)
            found = self.ask("GET", f"/v1/jobs?{urlencode([*asked, ('limit', min(limit - len(jobs), _PAGE))])}")
            jobs += found["jobs"]
            cursor = found["next_cursor"]
            if cursor is None or len(jobs) >= limit:
                return jobs

    def show(self, job_id: str) -> dict[str, Any]:
        """See `JobDesk.show`."""
        return self.ask("GET", f"/v1/jobs/{quote(job_id, safe='')}")

    def cancel(self, job_id: str) -> dict[str, Any]:
        """See `JobDesk.cancel`."""
        return self.ask("POST", f"/v1/jobs/{quote(job_id, safe='')}/cancel")

    def requeue(self, job_id: str) -> dict[str, Any]:
        """See `JobDesk.requeue`."""
        return self.ask("POST", f"/v1/jobs/{quote(job_id, safe='')}/requeue")

    @contextlib.contextmanager
    def backup(self) -> Iterator[BinaryIO]:
        """A copy of its job store, to be read once."""
        connection = _UnixConnection(self._path, _BACKUP_TIMEOUT_S)
        try:
            connection.request("GET", "/v1/backup")
            response = connection.getresponse()
            if response.status >= http.client.BAD_REQUEST:
                answer = json.loads(response.read())
                raise CommandError(str(answer.get("detail") or f"the server answered with status {response.status}"))
            yield response
        except (http.client.HTTPException, ConnectionError, TimeoutError, ValueError) as error:
            raise self._cannot_be_asked(error) from None
        finally:
            connection.close()

    def health(self) -> dict[str, Any]:
        """Its `GET /health`, whatever status it comes with."""
        return self._exchange("GET", "/health")[1]

    def ask(self, method: str, target: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """What it answers.

        Raises:
            CommandError: it refuses, or does not answer.
        """
        status, answer = self._exchange(method, target, body)
        if status >= http.client.BAD_REQUEST:
            raise CommandError(str(answer.get("detail") or f"the server answered with status {status}"))
        return answer

    def _exchange(self, method: str, target: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        connection = _UnixConnection(self._path)
        try:
            if body is None:
                connection.request(method, target)
            else:
                connection.request(method, target, json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._cannot_be_asked(error) from None
        finally:
            connection.close()
        return response.status, answer if isinstance(answer, dict) else {}

    def _cannot_be_asked(self, error: Exception) -> CommandError:
        reason = "it does not answer" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        return CommandError(f"the server at {self._path} cannot be asked: {reason}", UNREACHABLE)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path, timeout_s: float = _TIMEOUT_S) -> None:
        super().__init__("localhost")
        self._path = path
        self._timeout_s = timeout_s

    def connect(self) -> None:
        self.sock = connect_to(self._path, self._timeout_s)
