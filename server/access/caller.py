"""Who asks: what the access middleware has found out about a request's sender, for routes, limits and logs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

from server.jobs.record import LOCAL_KEY

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection  # the command line knows scopes, and no web framework

__all__ = ["ALL_SCOPES", "LOCAL_CALLER", "NOBODY", "OPERATOR", "Caller", "Scope", "caller_of"]

Scope = Literal["generate", "read", "metrics", "admin"]
"""What a key may do: ask for pictures, look, read the metrics, or everything and for every key."""

ALL_SCOPES: Final[frozenset[Scope]] = frozenset(get_args(Scope))


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The sender of one request, authenticated."""

    key_id: str
    """Of the API key; `LOCAL_KEY` where there are no keys. Whose jobs are asked for and shown."""
    scopes: frozenset[Scope]
    """What may be done."""
    is_operator: bool = False
    """Whether it is the command line on the operator's socket."""


OPERATOR: Final = Caller(key_id=LOCAL_KEY, scopes=ALL_SCOPES, is_operator=True)
"""Whoever may open the operator's socket."""

LOCAL_CALLER: Final = Caller(key_id=LOCAL_KEY, scopes=ALL_SCOPES - {"admin"})
"""A program on this machine, while there are no keys."""

NOBODY: Final = Caller(key_id="", scopes=frozenset())
"""Whoever looks at what is open to all; whether there is a key is not looked at."""


def caller_of(connection: HTTPConnection) -> Caller:
    """Who sends this request. Only behind the access middleware."""
    caller: Caller = connection.state.caller
    return caller
