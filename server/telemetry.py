"""Request telemetry: request id, log line and counters of every request. Never a prompt or a key."""

from __future__ import annotations

import re
import secrets
import time

import structlog
from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.access.caller import Caller
from server.error_wording import path_without_secrets
from server.log_format import type_and_place
from server.metrics import Metrics
from server.problems import problem_response

__all__ = ["RequestLog"]

_log = structlog.get_logger("server")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RequestLog:
    """Gives each request its id, answers what no handler caught, and logs and counts it when it is over.

    Around everything that can fail, so that nothing gets past it; only what believes proxies and adds headers to every
    answer is further out. Pure ASGI, since Starlette's own base class for middleware would hide hang-ups from the
    routes.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; anything else passes through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        request = Request(scope, receive)
        request.state.request_id = _request_id(request.headers)
        request.state.log = {}
        status, answered = 0, None

        async def send_with_id(message: Message) -> None:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                status, answered = message["status"], time.perf_counter()
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request.state.request_id
            await send(message)

        self._metrics.request_began()
        structlog.contextvars.bind_contextvars(request_id=request.state.request_id)
        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:  # noqa: BLE001 -- the border: a traceback never leaves the server
            response = problem_response(request, error)
            if request.state.log["code"] == "internal_error":
                _log.error("unexpected error", request_id=request.state.request_id, **type_and_place(error))
            if not status:
                await response(scope, receive, send_with_id)
        finally:
            ended = time.perf_counter()
            self._count(scope, request, status, (answered or ended) - began)
            caller: Caller | None = getattr(request.state, "caller", None)
            if caller is not None:
                request.state.log["key_id"] = caller.key_id
            _log.info(
                "request",
                method=scope["method"],
                path=_path(scope),
                status=status,
                duration_ms=round((ended - began) * 1000, 1),
                request_id=request.state.request_id,
                **request.state.log,
            )
            structlog.contextvars.clear_contextvars()  # the connection's next request may be served in this context

    def _count(self, scope: Scope, request: Request, status: int, seconds: float) -> None:
        logged = request.state.log
        self._metrics.request_ended(_route(scope), scope["method"], status, seconds)
        if "code" in logged:
            self._metrics.error_answered(logged["code"])
        if "limit" in logged:
            self._metrics.rate_limited(logged["limit"])


def _request_id(headers: Headers) -> str:
    theirs = headers.get("x-request-id", "")
    return theirs if _REQUEST_ID.fullmatch(theirs) else secrets.token_hex(16)


def _path(scope: Scope) -> str:
    # As it came over the wire: percent-encoded, so that it cannot hold control characters.
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    return path_without_secrets(raw.decode("ascii", "backslashreplace"))


def _route(scope: Scope) -> str:
    """The template of the route that served a request: one of a few, whatever callers ask for."""
    route = scope.get("route")
    if route is not None:
        return str(route.path)
    if "app_root_path" in scope:  # static files: the folder
        return str(scope["root_path"])
    # A plain route of Starlette's has no parameters: its path is its template.
    return str(scope["path"]) if "endpoint" in scope else "none"
