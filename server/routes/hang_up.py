"""Waits for work on behalf of a caller, and ends it when the caller hangs up."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request

from server.errors import ClientGoneError

__all__ = ["until_hang_up"]

_T = TypeVar("_T")


async def until_hang_up(request: Request, work: Coroutine[Any, Any, _T], what_becomes: str) -> _T:
    """Do the work; cancel it if the caller hangs up.

    Args:
        request: of the caller.
        work: what it waits for.
        what_becomes: of the job then, for the log.

    Raises:
        ClientGoneError: the caller hung up first.
    """
    working = asyncio.create_task(work)
    hanging_up = asyncio.create_task(_hang_up(request))
    try:
        await asyncio.wait({working, hanging_up}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientGoneError(f"the client disconnected; {what_becomes}")
    finally:
        working.cancel()
        hanging_up.cancel()
        await asyncio.gather(working, hanging_up, return_exceptions=True)


async def _hang_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
