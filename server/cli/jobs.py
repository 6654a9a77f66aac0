"""The commands `jobs list`, `show`, `cancel` and `requeue`: what they ask, and how the answer is printed."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from server.cli.errors import CommandError
from server.cli.job_desk import JobDesk, job_desk
from server.config import StartError, load_settings

__all__ = ["as_table", "cancel_job", "list_jobs", "requeue_job", "show_job"]

_COLUMNS = ("ID", "STATUS", "STEP", "CREATED", "PICTURES", "UNITS", "USER", "WHY")
_PROMPTS = ("prompt", "negative_prompt")
"""Shown only where asked for: a terminal's output is kept and passed on like a log."""


def list_jobs(arguments: argparse.Namespace) -> None:
    """Print the newest jobs, a line each."""
    with _desk() as desk:
        jobs = desk.page(statuses=arguments.status, user=arguments.user, limit=arguments.limit)
    if arguments.json:
        _print(_as_json([_without_prompts(job) for job in jobs]))
    elif jobs:
        _print(as_table([_COLUMNS, *(_row(job) for job in jobs)]))
    else:
        print("there are no such jobs", file=sys.stderr)  # noqa: T201 -- for whoever typed the command


def show_job(arguments: argparse.Namespace) -> None:
    """Print everything that is known of a job, its prompts if asked for."""
    with _desk() as desk:
        job = desk.show(arguments.id)
    told = job if arguments.prompt else _without_prompts(job)
    _print(_as_json(told) if arguments.json else as_table(list(_flat(told))))


def cancel_job(arguments: argparse.Namespace) -> None:
    """Cancel a job before its next step."""
    with _desk() as desk:
        job = desk.cancel(arguments.id)
    if job["status"] != "cancelled":
        raise CommandError(f"the job has ended already: it is {job['status']}")
    _print(f"{job['id']} is cancelled")


def requeue_job(arguments: argparse.Namespace) -> None:
    """Let a dead job be tried again."""
    with _desk() as desk:
        job = desk.requeue(arguments.id)
    _print(f"{job['id']} is {job['status']} again")


@contextlib.contextmanager
def _desk() -> Iterator[JobDesk]:
    try:
        settings = load_settings()
    except StartError as error:
        raise CommandError(str(error)) from None
    with job_desk(settings.server_folder, settings.model_id) as desk:
        yield desk


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


def as_table(rows: Sequence[Sequence[str]]) -> str:
    """Lines with their cells in columns, fit for any terminal."""
    shown = [[_printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in shown)
    return "\n".join(line.rstrip() for line in lines)


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every known leaf of a JSON object with the dotted path to it."""
    for name, part in value.items():
        parts = dict(enumerate(part)) if isinstance(part, list) else part
        if isinstance(parts, dict):
            yield from _flat(parts, f"{prefix}{name}.")
        elif part is not None:
            yield f"{prefix}{name}", str(part)


def _printable(text: str) -> str:
    """What a caller wrote cannot steer the terminal, nor make lines of its own."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def _as_json(value: object) -> str:
    return json.dumps(value, indent=2)  # escapes whatever is not ASCII, and so all that could steer a terminal


def _print(text: str) -> None:
    print(text)  # noqa: T201 -- a command's answer
