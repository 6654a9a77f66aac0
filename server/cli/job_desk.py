"""Whom the command line asks about jobs: the running server, or the store itself when no server has it.

Both answer with the API's JSON (`GET /v1/jobs/{id}`), so that what is printed does not depend on who was asked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from server.cli.running_server import running_server
from server.cli.stopped_server import stopped_server

__all__ = ["JobDesk", "job_desk"]


class JobDesk(Protocol):
    """Answers for every key's jobs. Every method raises `CommandError`."""

    def page(self, *, statuses: list[str], user: str | None, limit: int) -> list[dict[str, Any]]:
        """The newest `limit` jobs, newest first; of some statuses or one user only, if asked."""
        ...

    def show(self, job_id: str) -> dict[str, Any]:
        """One job."""
        ...

    def cancel(self, job_id: str) -> dict[str, Any]:
        """The job, cancelled, or unchanged if it had ended."""
        ...

    def requeue(self, job_id: str) -> dict[str, Any]:
        """The dead job, queued again."""
        ...


@contextlib.contextmanager
def job_desk(folder: Path, model_id: str) -> Iterator[JobDesk]:
    """Whoever has the jobs.

    Args:
        folder: `DATA_DIR/server`.
        model_id: of the settings; what the store's jobs are said to be drawn with.

    Raises:
        CommandError: the server does not answer; or there is none, and the store cannot be opened.
    """
    server = running_server(folder)
    if server is not None:
        yield server
        return
    with stopped_server(folder, model_id) as desk:
        yield desk
