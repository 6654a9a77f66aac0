"""The commands `jobs list`, `show`, `cancel` and `requeue`: their requests and output."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from server.cli.errors import CommandError
from server.cli.output import as_json, as_table, say, say_note
from server.cli.server_client import ServerClient, any_server, command_settings

__all__ = ["cancel_job", "list_jobs", "newest_jobs", "requeue_job", "show_job"]

_COLUMNS = ("ID", "STATUS", "STEP", "CREATED", "PICTURES", "UNITS", "USER", "WHY")
_PROMPTS = ("prompt", "negative_prompt")
"""Shown only where asked for: a terminal's output is kept and passed on like a log."""


def list_jobs(arguments: argparse.Namespace) -> None:
    """Print the newest jobs, a line each."""
    with any_server(command_settings()) as server:
        jobs = newest_jobs(server, statuses=arguments.status, user=arguments.user, limit=arguments.limit)
    if arguments.json:
        say(as_json([_without_prompts(job) for job in jobs]))
    elif jobs:
        say(as_table([_COLUMNS, *(_row(job) for job in jobs)]))
    else:
        say_note("no such jobs")


def show_job(arguments: argparse.Namespace) -> None:
    """Print everything that is known of a job, its prompts if asked for."""
    job = _ask("GET", arguments.id)
    shown = job if arguments.prompt else _without_prompts(job)
    say(as_json(shown) if arguments.json else as_table(list(_flat(shown))))


def cancel_job(arguments: argparse.Namespace) -> None:
    """Cancel a job before its next step."""
    job = _ask("POST", f"{arguments.id}/cancel")
    if job["status"] != "cancelled":
        raise CommandError(f"the job has ended already: it is {job['status']}")
    say(f"{job['id']} is cancelled")


def requeue_job(arguments: argparse.Namespace) -> None:
    """Let a dead job be tried again."""
    job = _ask("POST", f"{arguments.id}/requeue")
    say(f"{job['id']} is {job['status']} again")


def newest_jobs(
    server: ServerClient, *, statuses: Sequence[str], user: str | None, limit: int, page: int = 100
) -> list[dict[str, Any]]:
    """The newest `limit` jobs, newest first, asked for in pages; of some statuses or one user only, if asked."""
    jobs: list[dict[str, Any]] = []
    wanted = [("status", status) for status in statuses] + ([("user", user)] if user is not None else [])
    cursor: list[tuple[str, str]] = []
    while True:
        limits = [("limit", str(min(limit - len(jobs), page)))]
        found = server.ask("GET", "/v1/jobs", params=[*wanted, *cursor, *limits])
        jobs += found["jobs"]
        if found["next_cursor"] is None or len(jobs) >= limit:
            return jobs
        cursor = [("cursor", found["next_cursor"])]


def _ask(method: str, path: str) -> dict[str, Any]:
    with any_server(command_settings()) as server:
        return server.ask(method, f"/v1/jobs/{path}")


def _without_prompts(job: Mapping[str, Any]) -> dict[str, Any]:
    params = {name: value for name, value in job["params"].items() if name not in _PROMPTS}
    return {**job, "params": params}


def _row(job: Mapping[str, Any]) -> tuple[str, ...]:
    params = job["params"]
    size = f"{params['width']}x{params['height']}"
    return (
        job["id"],
        job["status"],
        f"{job['step']}/{job['steps']}",
        job["created_at"],
        size if params["num_images"] == 1 else f"{params['num_images']} x {size}",
        f"{job['work_units']:.2f}",
        job["user"] or "",
        job["error"]["detail"] if job["error"] else "",
    )


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every known leaf of a JSON object with the dotted path to it."""
    for name, part in value.items():
        parts = dict(enumerate(part)) if isinstance(part, list) else part
        if isinstance(parts, dict):
            yield from _flat(parts, f"{prefix}{name}.")
        elif part is not None:
            yield f"{prefix}{name}", str(part)
