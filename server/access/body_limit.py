"""How large a request's body may be, whether it says so beforehand or not."""

from __future__ import annotations

from typing import Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["MAX_BODY_BYTES", "BodyLimit"]

MAX_BODY_BYTES: Final = 2**20
"""Two prompts of the longest kind take 64 kB with every character escaped; the rest is room for what comes later."""


class BodyLimit:
    """Refuses a body beyond `MAX_BODY_BYTES` with 413, before it is in memory.

    FastAPI has a limit of its own (`max_body_size`), but answers a body that is announced as too large in plain text.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request with a counted body.

        Raises:
            HTTPException: 413.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdecimal() and int(announced[:20]) > MAX_BODY_BYTES:
            raise _too_large()
        received = 0

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY_BYTES:
                raise _too_large()
            return message

        await self._app(scope, receive_counted, send)


def _too_large() -> HTTPException:
    return HTTPException(413, f"the body must have at most {MAX_BODY_BYTES} bytes")
