"""How many requests a key may send: counted after it is authenticated, before the body is read."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.access.caller import NOBODY, Caller
from server.access.limits import KeyLimits

__all__ = ["RequestLimits"]


class RequestLimits:
    """Answers 429 to a key that has sent as many requests as it may, and tells every key how many are left.

    Goes inside the part of the app that authenticates.
    """

    def __init__(self, app: ASGIApp, limits: KeyLimits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it.

        Raises:
            RateLimitedError: there were as many as may be.
        """
        caller: Caller | None = scope.get("state", {}).get("caller") if scope["type"] == "http" else None
        if caller is None or caller.is_operator or caller is NOBODY:
            await self._app(scope, receive, send)
            return
        self._limits.take_request(caller.key_id)

        async def send_with_limits(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._limits.headers(caller.key_id).items():
                    headers.setdefault(name, value)  # a refusal tells of the limit that was reached
            await send(message)

        await self._app(scope, receive, send_with_limits)
