"""Body size limit and body timeout of a request, whether it declares its length or not.

Where pictures may come with a request (`upload_paths`), its body may be larger; the route then takes it to the disk.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection
from typing import Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.access.client_timeouts import ClientTimeouts
from server.errors import UploadTooLargeError

__all__ = ["MAX_BODY_BYTES", "MAX_UPLOAD_BYTES", "BodyLimit"]

MAX_BODY_BYTES: Final = 2**20
"""Two prompts of the longest kind take 64 kB with every character escaped; the rest is room for what comes later."""

MAX_UPLOAD_BYTES: Final = 2**25
"""Of a request with pictures: two of the largest, as they are or in base64 with something to spare."""


class BodyLimit:
    """Refuses a body beyond its limit with 413, before it is in memory, and one that does not come with 408.

    FastAPI has a limit of its own (`max_body_size`), but answers a body that is announced as too large in plain text.
    """

    def __init__(
        self,
        app: ASGIApp,
        timeouts: ClientTimeouts | None = None,
        upload_paths: Collection[re.Pattern[str]] = (),
    ) -> None:
        """Wrap `app`.

        Args:
            app: what answers.
            timeouts: for bodies that come slowly.
            upload_paths: where a body may have `MAX_UPLOAD_BYTES`, since pictures may be in it.
        """
        self._app = app
        self._timeouts = timeouts or ClientTimeouts()
        self._upload_paths = tuple(upload_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request with a counted body.

        Raises:
            HTTPException: 413, or 408.
            UploadTooLargeError: a request that may have pictures is too large all the same.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        takes_pictures = scope["method"] == "POST" and any(path.match(scope["path"]) for path in self._upload_paths)
        max_bytes = MAX_UPLOAD_BYTES if takes_pictures else MAX_BODY_BYTES
        too_large = _upload_too_large if takes_pictures else _too_large
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdecimal() and int(announced[:20]) > max_bytes:
            raise too_large()
        began = asyncio.get_running_loop().time()
        received = 0
        is_whole = False

        async def receive_counted() -> Message:
            nonlocal received, is_whole
            if is_whole:
                return await receive()  # for as long as the route likes: what comes is the hang-up
            allowed_s = self._timeouts.body_s + received / self._timeouts.body_bytes_per_s
            try:
                async with asyncio.timeout_at(began + allowed_s):
                    message = await receive()
            except TimeoutError:
                raise _too_slow() from None
            received += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            if received > max_bytes:
                raise too_large()
            return message

        await self._app(scope, receive_counted, send)


def _too_large() -> HTTPException:
    return HTTPException(413, f"the body must have at most {MAX_BODY_BYTES} bytes")


def _upload_too_large() -> UploadTooLargeError:
    return UploadTooLargeError(f"the body must have at most {MAX_UPLOAD_BYTES} bytes, pictures included")


def _too_slow() -> HTTPException:
    return HTTPException(408, "the body came too slowly, or not at all", {"Connection": "close"})
