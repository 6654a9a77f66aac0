"""Parser of server-sent events: bytes in, the data of each message out. No HTTP library.

Also tells of the bytes that hold no message, such as the comments that keep a stream open: the reader can look at
the clock then, which HTTPX2's own reader does not allow. The format: https://html.spec.whatwg.org/#parsing-an-event-stream.
"""

from __future__ import annotations

import re
from typing import Final

from semantic_bit_client.errors import BadAnswer

__all__ = ["EventStream"]

_END_OF_LINE: Final = re.compile(rb"\r\n|\n|\r(?!\Z)")
"""A carriage return at the very end may be the first half of one that is still on its way."""

_LARGEST_MESSAGE: Final = 2**20
"""Bytes; many times the largest preview."""


class EventStream:
    """One stream. Belongs to its reader."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def take(self, piece: bytes) -> list[str]:
        """The data of each message that this piece completes; of any event, since this server sends but one.

        Raises:
            BadAnswer: a message that does not end.
        """
        *lines, self._rest = _END_OF_LINE.split(self._rest + piece)
        messages: list[str] = []
        for line in lines:
            name, _, value = line.partition(b":")
            if name == b"data":
                self._data.append(value.removeprefix(b" "))
            elif not line and self._data:
                messages.append(b"\n".join(self._data).decode(errors="replace"))
                self._data = []
        if len(self._rest) + sum(map(len, self._data)) > _LARGEST_MESSAGE:
            raise BadAnswer(f"a message of more than {_LARGEST_MESSAGE} bytes")
        return messages
