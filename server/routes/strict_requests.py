"""Strict parsing of requests: no unknown query parameter, no duplicate name in a JSON object, no huge number."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from server.strict_json import RepeatedNameError, strict_json

__all__ = ["StrictRequest", "StrictRoute", "refuse_unknown_query"]

_FOR_PEOPLE: Final = frozenset({"/", "/docs"})
"""Pages, whose addresses others lengthen as they like."""


async def refuse_unknown_query(request: Request) -> None:
    """Refuse a query parameter that the route does not read: a misspelt filter would show everything.

    Raises:
        RequestValidationError: there is one.
    """
    route = request.scope.get("route")
    if not request.query_params or not isinstance(route, APIRoute) or route.path in _FOR_PEOPLE:
        return
    if getattr(route, "ignores_unknown_query", False):
        return
    known = {parameter.alias for parameter in route.dependant.query_params}
    unknown = [name for name in request.query_params if name not in known]
    if unknown:
        raise RequestValidationError(
            [
                {
                    "type": "extra_forbidden",
                    "loc": ("query", name),
                    "msg": "",
                    "input": request.query_params[name],
                }
                for name in unknown
            ]
        )


class StrictRoute(APIRoute):
    """A route whose JSON body is read strictly."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, with a request that reads strictly."""
        handle = super().get_route_handler()

        async def handler(request: Request) -> Response:
            strict = request if isinstance(request, StrictRequest) else StrictRequest(request.scope, request.receive)
            return await handle(strict)

        return handler


class StrictRequest(Request):
    """A request whose JSON is read strictly."""

    async def json(self) -> Any:  # noqa: ANN401 -- JSON is anything
        """The body.

        Raises:
            HTTPException: 400, an object in it has a name twice.
        """
        try:
            return strict_json(await self.body())
        except RepeatedNameError as error:
            raise HTTPException(400, str(error)) from None
