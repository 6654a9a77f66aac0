"""The engine process's connection to the gateway: an inherited socket, read and written in frames.

When the line closes, the gateway is gone or wants this process gone, and it ends at once, whatever it is doing: nothing
in an engine process is worth keeping.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import BinaryIO

from server.executors.messages import (
    HEADER,
    Configure,
    FromEngine,
    ToEngine,
    ToWorker,
    decode_to_engine,
    frame,
)

__all__ = ["Line", "MessageHandler"]

MessageHandler = Callable[[ToWorker], None]
"""Takes a message in and returns at once."""


class Line:
    """Blocking reads and writes. Any thread may send; one listens."""

    def __init__(self, connection: socket.socket) -> None:
        self._incoming: BinaryIO = connection.makefile("rb")
        self._connection = connection
        self._sending = threading.Lock()
        self._handler: Future[MessageHandler] = Future()

    @classmethod
    def inherited(cls) -> tuple[Line, Configure]:
        """The line whose file descriptor is this program's only argument, and what the gateway says first."""
        line = cls(socket.socket(fileno=int(sys.argv[1])))
        configuration = line._receive()
        if not isinstance(configuration, Configure):
            raise SystemExit("the first message must be the configuration")
        # From now on, so that a gateway's end is noticed while the model loads, too.
        threading.Thread(target=line._listen, name="gateway-line", daemon=True).start()
        return line, configuration

    def hand_messages_to(self, handler: MessageHandler) -> None:
        """Say who takes the messages; until then they wait."""
        self._handler.set_result(handler)

    def send(self, message: FromEngine) -> None:
        """Send a message. Ends the process if the gateway has gone."""
        try:
            with self._sending:
                self._connection.sendall(frame(message))
        except OSError:
            os._exit(0)

    def _listen(self) -> None:
        while True:
            message = self._receive()
            if not isinstance(message, ToWorker):
                # The engine's thread may be inside a device call that never returns: no polite end.
                os._exit(0)
            self._handler.result()(message)

    def _receive(self) -> ToEngine | None:
        """The next message; None when the line has been closed."""
        try:
            header = self._incoming.read(HEADER.size)
            if len(header) < HEADER.size:
                return None
            (length,) = HEADER.unpack(header)
            body = self._incoming.read(length)
        except ConnectionError:
            return None
        return decode_to_engine(body) if len(body) == length else None
