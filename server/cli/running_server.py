"""What the command line asks of a server that runs: HTTP over the operator's unix socket."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from server.access.operator_socket import connect_to
from server.cli.errors import UNREACHABLE, CommandError

__all__ = ["NobodyListensError", "RunningServer"]

_TIMEOUT_S = 10.0
_PAGE = 100
"""Jobs asked for at once."""


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
            found = self._ask("GET", f"/v1/jobs?{urlencode([*asked, ('limit', min(limit - len(jobs), _PAGE))])}")
            jobs += found["jobs"]
            cursor = found["next_cursor"]
            if cursor is None or len(jobs) >= limit:
                return jobs

    def show(self, job_id: str) -> dict[str, Any]:
        """See `JobDesk.show`."""
        return self._ask("GET", f"/v1/jobs/{quote(job_id, safe='')}")

    def cancel(self, job_id: str) -> dict[str, Any]:
        """See `JobDesk.cancel`."""
        return self._ask("POST", f"/v1/jobs/{quote(job_id, safe='')}/cancel")

    def requeue(self, job_id: str) -> dict[str, Any]:
        """See `JobDesk.requeue`."""
        return self._ask("POST", f"/v1/jobs/{quote(job_id, safe='')}/requeue")

    def health(self) -> dict[str, Any]:
        """Its `GET /health`, whatever status it comes with."""
        return self._exchange("GET", "/health")[1]

    def _ask(self, method: str, target: str) -> dict[str, Any]:
        status, answer = self._exchange(method, target)
        if status >= http.client.BAD_REQUEST:
            raise CommandError(str(answer.get("detail") or f"the server answered with status {status}"))
        return answer

    def _exchange(self, method: str, target: str) -> tuple[int, dict[str, Any]]:
        connection = _UnixConnection(self._path)
        try:
            connection.request(method, target)
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = "it does not answer" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
            raise CommandError(f"the server at {self._path} cannot be asked: {reason}", UNREACHABLE) from None
        finally:
            connection.close()
        return response.status, answer if isinstance(answer, dict) else {}


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = connect_to(self._path, _TIMEOUT_S)
