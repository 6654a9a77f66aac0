"""Authorisation: which scope a route needs, `dependencies=[needs("read")]`. The OpenAPI document shows the same."""

from __future__ import annotations

from fastapi import Request, Security
from fastapi.openapi.models import HTTPBearer as Bearer
from fastapi.params import Depends
from fastapi.security.base import SecurityBase

from server.access.caller import Caller, caller_of
from server.errors import InsufficientScopeError
from server.store.api_keys import Scope

__all__ = ["may", "needs", "require_scope"]


def needs(scope: Scope) -> Depends:
    """Refuse a caller without this scope."""
    return Security(_Needs(scope), scopes=[scope])  # type: ignore[no-any-return]  # what FastAPI declares as Any


def may(caller: Caller, scope: Scope) -> bool:
    """Whether a caller has a scope: `admin` has all of them."""
    return scope in caller.scopes or "admin" in caller.scopes


def require_scope(caller: Caller, scope: Scope) -> None:
    """Refuse a caller without this scope.

    Raises:
        InsufficientScopeError: it does not have it.
    """
    if not may(caller, scope):
        raise InsufficientScopeError(f"the scope {scope} is required, and the API key does not have it")


class _Needs(SecurityBase):
    """The check, and what FastAPI writes about it into the OpenAPI document (`openapi.py` adds the header's alias)."""

    def __init__(self, scope: Scope) -> None:
        self.model = Bearer(description="An API key, `sb_live_...`, or the value of the setting `API_KEY`")
        self.scheme_name = "bearer"
        self._scope = scope

    async def __call__(self, request: Request) -> None:
        """Let a request pass, or refuse it.

        Raises:
            InsufficientScopeError: its sender does not have the scope.
        """
        require_scope(caller_of(request), self._scope)
