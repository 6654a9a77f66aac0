"""A dream's server-sent events: a snapshot at once and at every change, until it is over."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from newdreamflow.dreams.models import Dream
from newdreamflow.dreams.snapshots import snapshot_of
from newdreamflow.dreams.watching import watcher

__all__ = ["events_of"]

_SILENCE_S: Final = 15.0
"""Proxies cut lines on which nothing is said."""
_LONGEST_S: Final = 600.0
"""Then the browser connects anew: no line is open for ever."""
_RECONNECT_MS: Final = 1000


async def events_of(
    dream: Dream, *, silence_s: float = _SILENCE_S, longest_s: float = _LONGEST_S
) -> AsyncGenerator[bytes, None]:
    """The stream, as bytes of the format (https://html.spec.whatwg.org/#server-sent-events)."""
    end = time.monotonic() + longest_s
    yield b"retry: %d\n\n" % _RECONNECT_MS
    async with aclosing(watcher().sights(dream, silence_s=silence_s)) as sights:
        async for sight in sights:
            if sight is None:
                yield b": still here\n\n"
            else:
                yield b"event: snapshot\ndata: %s\n\n" % json.dumps(snapshot_of(sight)).encode()
            if time.monotonic() > end:
                return
