"""How large a request's body may be, whether it says so beforehand or not, and how slowly it may come."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.access.timeouts import Patience

__all__ = ["MAX_BODY_BYTES", "BodyLimit"]

MAX_BODY_BYTES: Final = 2**20
"""Two prompts of the longest kind take 64 kB with every character escaped; the rest is room for what comes later."""


class BodyLimit:
    """Refuses a body beyond `MAX_BODY_BYTES` with 413, before it is in memory, and one that does not come with 408.

    FastAPI has a limit of its own (`max_body_size`), but answers a body that is announced as too large in plain text.
    """

    def __init__(self, app: ASGIApp, patience: Patience | None = None) -> None:
        self._app = app
        self._patience = patience or Patience()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request with a counted body.

        Raises:
            HTTPException: 413, or 408.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdecimal() and int(announced[:20]) > MAX_BODY_BYTES:
            raise _too_large()
        began = asyncio.get_running_loop().time()
        received = 0
        is_whole = False

        async def receive_counted() -> Message:
            nonlocal received, is_whole
            if is_whole:
                return await receive()  # for as long as the route likes: what comes is the hang-up
            allowed_s = self._patience.body_s + received / self._patience.body_bytes_per_s
            try:
                async with asyncio.timeout_at(began + allowed_s):
                    message = await receive()
            except TimeoutError:
                raise _too_slow() from None
            received += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            if received > MAX_BODY_BYTES:
                raise _too_large()
            return message

        await self._app(scope, receive_counted, send)


def _too_large() -> HTTPException:
    return HTTPException(413, f"the body must have at most {MAX_BODY_BYTES} bytes")


def _too_slow() -> HTTPException:
    return HTTPException(408, "the body came too slowly, or not at all", {"Connection": "close"})
