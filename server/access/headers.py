"""Security headers of every response."""

from __future__ import annotations

from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["SECURITY_HEADERS", "SecurityHeaders"]

SECURITY_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    # No answer is a page unless it says so with a policy of its own: nothing in it is loaded, run or framed.
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    # Prompts and pictures are their owner's. What may be kept says so itself.
    "Cache-Control": "no-store",
}
"""On every answer that does not say otherwise itself."""

_PAGE_HEADERS: Final = {
    **SECURITY_HEADERS,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
}


class SecurityHeaders:
    """Adds the headers to every answer. Around everything that answers, preflights and errors included."""

    def __init__(self, app: ASGIApp, hsts_s: int = 0) -> None:
        """Wrap `app`.

        Args:
            app: what answers.
            hsts_s: seconds that browsers shall insist on HTTPS for this host; 0 says nothing. Only said over HTTPS.
        """
        self._app = app
        self._hsts_s = hsts_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                is_page = headers.get("content-type", "").startswith("text/html")
                for name, value in (_PAGE_HEADERS if is_page else SECURITY_HEADERS).items():
                    headers.setdefault(name, value)
                if self._hsts_s and scope["scheme"] == "https":
                    headers["Strict-Transport-Security"] = f"max-age={self._hsts_s}"
            await send(message)

        await self._app(scope, receive, send_secured)
