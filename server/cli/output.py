"""Output of commands: standard output and standard error, JSON, aligned tables without control characters."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Sequence

__all__ = ["as_json", "as_table", "say", "say_note"]


def say(answer: str) -> None:
    """Print a command's answer, for people and programs."""
    print(answer, flush=True)  # noqa: T201 -- what a command is for


def say_note(note: str) -> None:
    """Print what only people read: standard output may be a program's."""
    print(note, file=sys.stderr)  # noqa: T201 -- what a command is for


def as_json(value: object) -> str:
    """JSON, in which whatever is not ASCII is escaped, and so all that could steer a terminal."""
    return json.dumps(value, indent=2)


def as_table(rows: Sequence[Sequence[str]], *, numeric: Collection[int] = ()) -> str:
    """Lines with their cells in columns, fit for any terminal.

    Args:
        rows: of text.
        numeric: the columns that are aligned at the right.
    """
    shown = [[_printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = (
        "  ".join(
            cell.rjust(width) if index in numeric else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in shown
    )
    return "\n".join(line.rstrip() for line in lines)


def _printable(text: str) -> str:
    """What a caller wrote cannot steer the terminal, nor make lines of its own."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
