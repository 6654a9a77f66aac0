"""The authenticated caller of a request: its key and scopes, for routes, limits and logs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from server.store.api_keys import ALL_SCOPES, Scope
from server.store.record import LOCAL_KEY

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection  # the command line knows scopes, and no web framework

__all__ = ["ANONYMOUS", "LOCAL_CALLER", "OPERATOR", "Caller", "caller_of"]


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
"""The operator: any program that may open the operator's socket."""

LOCAL_CALLER: Final = Caller(key_id=LOCAL_KEY, scopes=ALL_SCOPES - {"admin"})
"""A program on this machine, while there are no keys."""

ANONYMOUS: Final = Caller(key_id="", scopes=frozenset())
"""The caller of a route that is open to all; a key, if there is one, is not checked."""


def caller_of(connection: HTTPConnection) -> Caller:
    """Who sends this request. Only behind the access middleware."""
    caller: Caller = connection.state.caller
    return caller
