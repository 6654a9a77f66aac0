"""What a dialect is: which requests are answered in it, and how it says what a problem document says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from server.schemas.generation import Problem

__all__ = ["ERROR_CODE_HEADER", "Dialect", "Said", "renamed"]

ERROR_CODE_HEADER = "X-Error-Code"
"""Carries our own code of the error, for whoever looks for it in `docs/messages.md`."""


class Said(NamedTuple):
    """An error as another API says it."""

    status: int
    content: dict[str, Any]
    headers: Mapping[str, str]
    """Beside those of the problem document, or instead of them."""


class Dialect(NamedTuple):
    """The errors of one API."""

    name: str
    """As `COMPAT_APIS` names it."""
    speaks: Callable[[str, str], bool]
    """Whether a request with this method and path belongs to it."""
    say: Callable[[Problem], Said]
    schema: Mapping[str, Any]
    """JSON schema of what is said."""


def renamed(problem: Problem, names: Mapping[str, str]) -> tuple[str, str | None]:
    """The detail of a problem, and its first field, in the field names of another API.

    Args:
        problem: in our names.
        names: our name of a field -> theirs.
    """
    if not problem.errors:
        return problem.detail, None
    ours = problem.errors[0].field
    theirs = names.get(ours, ours)
    detail = f"{theirs}{problem.detail.removeprefix(ours)}" if problem.detail.startswith(ours) else problem.detail
    return detail, theirs
