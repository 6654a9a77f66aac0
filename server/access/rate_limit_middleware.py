"""Rate limit middleware: requests and concurrent requests per key, counted before the body is read."""

from __future__ import annotations

from collections import Counter
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.access.caller import ANONYMOUS, Caller
from server.access.rate_limits import KeyLimits
from server.errors import RateLimitedError
from server.store.record import LOCAL_KEY

__all__ = ["RateLimitMiddleware"]

_RETRY_S: Final = 5.0
"""Nobody knows when a stream of events ends."""


class RateLimitMiddleware:
    """Answers 429 to a key that has sent as many requests as it may, and reports in headers how many are left.

    Also to one that has as many in hand as it may: answers that wait, or go on for ever, hold connections, and one key
    must not hold those of all. Goes inside the part of the app that authenticates. Belongs to the event loop.
    """

    def __init__(self, app: ASGIApp, limits: KeyLimits, max_in_hand: int) -> None:
        """Make it.

        Args:
            app: what is limited.
            limits: how many requests a key may send.
            max_in_hand: how many of a key may be worked on at the same time.
        """
        self._app = app
        self._limits = limits
        self._max_in_hand = max_in_hand
        self._in_hand: Counter[str] = Counter()
        """Key id -> its requests that are worked on."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it.

        Raises:
            RateLimitedError: there were, or are, as many as may be.
        """
        caller: Caller | None = scope.get("state", {}).get("caller") if scope["type"] == "http" else None
        # Whoever is not limited: the operator, a program on this machine while there are no keys, and nobody.
        if caller is None or caller is ANONYMOUS or caller.key_id == LOCAL_KEY:
            await self._app(scope, receive, send)
            return
        if self._in_hand[caller.key_id] >= self._max_in_hand:
            raise self._refusal()
        self._limits.requests.take(caller.key_id)

        async def send_with_limits(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._limits.requests.headers(caller.key_id).items():
                    headers.setdefault(name, value)  # a refusal tells of the limit that was reached
            await send(message)

        one = Counter([caller.key_id])
        self._in_hand += one
        try:
            await self._app(scope, receive, send_with_limits)
        finally:
            self._in_hand -= one  # which forgets a key that has none

    def _refusal(self) -> RateLimitedError:
        return RateLimitedError(
            f"at most {self._max_in_hand} concurrent requests per key, event streams included",
            limit="concurrent-requests",
            retry_after_s=_RETRY_S,
            headers={
                "RateLimit": '"concurrent-requests";r=0',
                "RateLimit-Policy": f'"concurrent-requests";q={self._max_in_hand};qu="concurrent-requests"',
            },
        )
