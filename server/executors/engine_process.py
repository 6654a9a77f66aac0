"""The engine process: `python -m server.executors.engine_process FD`. Loads the model, then draws what it is told.

The line is a socket inherited from the gateway. When it closes, the gateway is gone or wants this process gone, and it
ends at once, whatever it is doing: nothing here is worth keeping.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, BinaryIO

from engine.errors import EngineError
from server.executors.messages import (
    HEADER,
    Cancel,
    Configure,
    FromEngine,
    LoadFailed,
    LoadProgress,
    Ping,
    Ready,
    Submit,
    ToEngine,
    decode_to_engine,
    frame,
)

if TYPE_CHECKING:
    from server.executors.worker import EngineWorker

logger = logging.getLogger(__name__)


class Line:
    """The gateway's end of the conversation, as blocking reads and writes. Any thread may send."""

    def __init__(self, connection: socket.socket) -> None:
        self._incoming: BinaryIO = connection.makefile("rb")
        self._connection = connection
        self._sending = threading.Lock()

    def send(self, message: FromEngine) -> None:
        """Send a message. Ends the process if nobody is there any more."""
        try:
            with self._sending:
                self._connection.sendall(frame(message))
        except OSError:
            os._exit(0)

    def receive(self) -> ToEngine | None:
        """The next message; None when the line has been closed."""
        header = self._incoming.read(HEADER.size)
        if len(header) < HEADER.size:
            return None
        (length,) = HEADER.unpack(header)
        body = self._incoming.read(length)
        return decode_to_engine(body) if len(body) == length else None


def main() -> None:
    """Load, say so, and draw until the line closes."""
    began = time.perf_counter()
    line = Line(socket.socket(fileno=int(sys.argv[1])))
    configuration = line.receive()
    if not isinstance(configuration, Configure):
        raise SystemExit("the first message must be the configuration")
    from server.executors.start_up import start_engine  # noqa: PLC0415 - torch takes seconds to import; timed here
    from server.executors.worker import EngineWorker  # noqa: PLC0415 - the same

    line.send(LoadProgress("import", time.perf_counter() - began))
    try:
        engine, info = start_engine(configuration, lambda phase, seconds: line.send(LoadProgress(phase, seconds)))
    except EngineError as error:
        line.send(LoadFailed(str(error)))
        return
    worker = EngineWorker(engine, line.send)
    threading.Thread(target=_listen, args=(line, worker), name="gateway-line", daemon=True).start()
    line.send(Ready(info))
    worker.run()


def _listen(line: Line, worker: EngineWorker) -> None:
    while True:
        message = line.receive()
        match message:
            case Submit() | Cancel() | Ping():
                worker.handle(message)
            case _:
                # The engine's thread may be inside a device call that never returns: no polite end.
                os._exit(0)


if __name__ == "__main__":
    main()
