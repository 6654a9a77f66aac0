"""What the server tells its operator: log set-up, and one line a request. Never a prompt, not even in an error."""

from __future__ import annotations

import logging
import re
import secrets
import sys
import time
import traceback
from typing import Any, Literal

import structlog
from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.problems import problem_response

__all__ = ["RequestLog", "configure_logging"]

_log = structlog.get_logger("server")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LONGEST_PATH = 200


class RequestLog:
    """Gives each request its id, answers what no handler caught, and logs one line when it is over.

    The outermost part of the app, so that nothing gets past it: pure ASGI, since Starlette's own base class for
    middleware would hide hang-ups from the routes.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; anything else passes through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        request = Request(scope, receive)
        request.state.request_id = _request_id(request.headers)
        request.state.log = {}
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request.state.request_id
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:  # noqa: BLE001 -- the border: a traceback never leaves the server
            response = problem_response(request, error)
            if request.state.log["code"] == "internal_error":
                _log.error("unexpected error", request_id=request.state.request_id, **_without_message(error))
            if not status:
                await response(scope, receive, send_with_id)
        finally:
            _log.info(
                "request",
                method=scope["method"],
                path=_path(scope),
                status=status,
                duration_ms=round((time.perf_counter() - began) * 1000, 1),
                request_id=request.state.request_id,
                **request.state.log,
            )


def configure_logging(level: str, log_format: Literal["auto", "json", "pretty"]) -> None:
    """Send everything that anybody logs, uvicorn included, to standard error in one format."""
    is_pretty = log_format == "pretty" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[structlog.typing.Processor] = (
        # Plain tracebacks: the default ones print local variables, and those can be prompts.
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if is_pretty
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, _drop_color_message],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    # Its lines would say less than ours. Without handlers uvicorn does not even make them.
    access = logging.getLogger("uvicorn.access")
    access.handlers.clear()
    access.propagate = False


def _drop_color_message(_logger: object, _name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    event.pop("color_message", None)
    return event


def _request_id(headers: Headers) -> str:
    theirs = headers.get("x-request-id", "")
    return theirs if _REQUEST_ID.fullmatch(theirs) else secrets.token_hex(16)


def _path(scope: Scope) -> str:
    # As it came over the wire: percent-encoded, so that it cannot hold control characters.
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    return raw[:_LONGEST_PATH].decode("ascii", "backslashreplace")


def _without_message(error: Exception) -> dict[str, Any]:
    """Type and place of an error. Its message stays out: it could quote what a caller wrote."""
    frames = traceback.extract_tb(error.__traceback__)
    return {
        "error": type(error).__qualname__,
        "where": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }
