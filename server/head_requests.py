"""HEAD requests, for pages, files, health and pictures."""

from __future__ import annotations

import re
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["HeadRequests"]

_PATHS: Final = re.compile(r"/|/docs|/openapi\.json|/livez|/readyz|/health|/v1/jobs/[^/]+/images/[^/]+")
"""Static files know HEAD by themselves; an event stream has no end to leave out."""


class HeadRequests:
    """Serves HEAD as the GET that it stands for, and keeps the body back."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] != "HEAD" or not _PATHS.fullmatch(scope["path"]):
            await self._app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        get = {**scope, "method": "GET"}
        try:
            await self._app(get, receive, send_head)
        finally:
            scope["route"] = get.get("route")  # for whoever counts requests by their route
