"""The connections of a listener: how many there are, how long each may dawdle, and what is said to one that is no use.

What uvicorn leaves to whoever stands in front of it is done here: a limit for the head of a request in bytes, fields
and seconds; for connections on which nothing happens; for answers that nobody takes; and for how many there may be.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import Any, Final

import httptools
import structlog
import uvicorn
from starlette.exceptions import HTTPException
from uvicorn._types import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, ASGISendEvent, Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from server.access.headers import SECURITY_HEADERS
from server.access.timeouts import Patience
from server.errors import MalformedRequestError, TooManyConnectionsError
from server.problems import PROBLEM_MEDIA_TYPE, problem_of

__all__ = ["MAX_FIELDS", "MAX_HEAD_BYTES", "MAX_TARGET_BYTES", "Connections", "GuardedProtocol"]

MAX_HEAD_BYTES: Final = 32 * 1024
"""Request line and headers together. Browsers with many cookies stay below 16 kB."""
MAX_TARGET_BYTES: Final = 8 * 1024
"""Path and query; RFC 9112, section 3, wants 8000 at least."""
MAX_FIELDS: Final = 100

_FULL_RETRY_S = 5.0
_PIECE_BYTES: Final = 64 * 1024

_log = structlog.get_logger("server")


class Connections:
    """The connections of one listener, counted.

    Where there are too many, the one that has been idle for longest is closed, so that nobody can keep others out with
    connections that ask for nothing.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._busy: set[GuardedProtocol] = set()
        self._idle: dict[GuardedProtocol, None] = {}

    def __len__(self) -> int:
        return len(self._busy) + len(self._idle)

    def opened(self, connection: GuardedProtocol) -> bool:
        """Count a new one. False if it is one too many, because all others have a request in hand."""
        self._idle[connection] = None
        if len(self) > self._most:
            longest_idle = next(iter(self._idle))
            if longest_idle is connection:
                return False
            self.closed(longest_idle)
            longest_idle.hang_up()
        return True

    def busy(self, connection: GuardedProtocol) -> None:
        """It has sent a request, which is to be answered."""
        self._idle.pop(connection, None)
        self._busy.add(connection)

    def idle(self, connection: GuardedProtocol) -> None:
        """All its requests are answered, and the answers are read."""
        if connection in self._busy:
            self._busy.remove(connection)
            self._idle[connection] = None

    def closed(self, connection: GuardedProtocol) -> None:
        """It counts no more."""
        self._idle.pop(connection, None)
        self._busy.discard(connection)


class GuardedProtocol(HttpToolsProtocol):
    """One connection. A client that keeps to HTTP and goes on, however slowly, does not notice."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        *,
        connections: Connections,
        patience: Patience,
    ) -> None:
        super().__init__(config, server_state, app_state)
        self.app = _in_pieces(config.loaded_app)
        self._siblings = connections
        self._patience = patience
        self._has_room = True
        self._deadline: asyncio.TimerHandle | None = None
        self._reading_deadline: asyncio.TimerHandle | None = None
        self._unread = 0
        self._head_bytes = 0
        self._is_in_head = False
        self._is_in_message = False
        self._wrong_head: Exception | None = None
        """What was found wrong with a head while the parser reads on."""
        self._is_refused = False
        """Whether nothing more is taken from this client."""

    # What asyncio tells.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """A client is there, and has said nothing yet."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(_PIECE_BYTES)  # TLS would hold eight times as much before it says so
        self._has_room = self._siblings.opened(self)
        self._expect_within(self._patience.head_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        super().connection_lost(exc)
        self._expect_nothing()
        self.resume_writing()
        self._siblings.closed(self)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        if self._is_refused:
            return
        self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # to a protocol that is not spoken here: the request itself has been read, and is answered
        except httptools.HttpParserError:
            self._refuse(self._wrong_head or MalformedRequestError("what came over this connection is no HTTP/1.1"))
            return
        if self._is_in_head and self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(_head_too_large())

    def pause_writing(self) -> None:
        """The client does not keep up with reading."""
        super().pause_writing()
        self._unread = self.transport.get_write_buffer_size()
        self._reading_deadline = self._reading_deadline or self._expect_reading()

    def resume_writing(self) -> None:
        """It has read on."""
        super().resume_writing()
        if self._reading_deadline is not None:
            self._reading_deadline.cancel()
            self._reading_deadline = None
        if not self._is_in_hand:
            self._siblings.idle(self)

    # What the parser tells.

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._is_in_head = self._is_in_message = True
        self._head_bytes = 0
        self._expect_within(self._patience.head_s)

    def on_headers_complete(self) -> None:
        """The whole head is there: the app begins to work."""
        self._wrong_head = self._wrong_with_head()
        if self._wrong_head is not None:
            raise self._wrong_head  # which ends the parser; it does not say why
        self._is_in_head = False
        self._expect_nothing()
        super().on_headers_complete()
        self._siblings.busy(self)

    def on_message_complete(self) -> None:
        """The body is there too."""
        super().on_message_complete()
        self._is_in_message = False
        if not self._is_in_hand:
            self._expect_within(self._patience.idle_s)

    # What the app's answer brings.

    def on_response_complete(self) -> None:
        """It is sent."""
        super().on_response_complete()
        self._unset_keepalive_if_required()  # uvicorn's own timer, which any byte stops for good
        if self._is_in_hand:
            return
        if not self.flow.write_paused:
            self._siblings.idle(self)
        if not self._is_in_message:
            self._expect_within(self._patience.idle_s)
        elif not self._is_in_head:
            # Not closed at once: what is not read makes the system take the answer back, too.
            self._expect_within(self._patience.linger_s)

    def hang_up(self) -> None:
        """Close it without waiting for the client, which is not asking for anything."""
        self.transport.abort()

    def shutdown(self) -> None:
        """The server ends: close it when nothing is on its way."""
        if self._is_in_hand or self.transport.get_write_buffer_size():
            super().shutdown()
        else:
            self.hang_up()  # over TLS, an idle client would not take part in closing before the time for that is over

    def _should_upgrade(self) -> bool:
        return False  # asked by uvicorn: no WebSockets are spoken here

    @property
    def _is_in_hand(self) -> bool:
        """Whether an answer is on its way."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete and not cycle.disconnected

    def _wrong_with_head(self) -> Exception | None:
        if not self._has_room:
            return TooManyConnectionsError(
                "as many connections as there may be have a request in hand", retry_after_s=_FULL_RETRY_S
            )
        if len(self.url) > MAX_TARGET_BYTES:
            return HTTPException(414, f"path and query must have at most {MAX_TARGET_BYTES} bytes")
        num_bytes = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if num_bytes > MAX_HEAD_BYTES or len(self.headers) > MAX_FIELDS:
            return _head_too_large()
        return None

    def _expect_within(self, seconds: float) -> None:
        self._expect_nothing()
        self._deadline = self.loop.call_later(seconds, self._is_late)

    def _expect_nothing(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _is_late(self) -> None:
        self._deadline = None
        if self._is_in_hand or self.flow.write_paused:
            # The next request dawdles while this one is worked on, or its answer read; those have limits of their own.
            self._expect_within(self._patience.head_s)
        elif self._is_in_head:
            self._refuse(HTTPException(408, "the request's headers came too slowly, or not at all"))
        else:
            self.hang_up()

    def _expect_reading(self) -> asyncio.TimerHandle:
        return self.loop.call_later(self._patience.read_s, self._is_reading_late)

    def _is_reading_late(self) -> None:
        unread = self.transport.get_write_buffer_size()
        if unread < self._unread:  # slow, but it goes on
            self._unread = unread
            self._reading_deadline = self._expect_reading()
        else:
            self.transport.abort()

    def _refuse(self, error: Exception) -> None:
        """Say what is wrong, and take nothing more."""
        self._is_refused = True
        self._is_in_head = False
        if self._is_in_hand:
            if self.pipeline or self.cycle.response_started:
                self.transport.abort()  # nothing can be said in the middle of an answer
                return
            # The app waits for the rest of a body that cannot be read.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self._siblings.idle(self)
        request_id = secrets.token_hex(16)
        problem, headers = problem_of(error, instance="", request_id=request_id)
        _log.info("refused connection", status=problem.status, code=problem.code, request_id=request_id)
        body = json.dumps(problem.as_json(), separators=(",", ":")).encode()
        headers |= {
            **SECURITY_HEADERS,
            "X-Request-Id": request_id,
            "Content-Type": PROBLEM_MEDIA_TYPE,
            "Content-Length": str(len(body)),
            "Connection": "close",
        }
        lines = [name + b": " + value + b"\r\n" for name, value in self.server_state.default_headers]
        lines += [f"{name.lower()}: {value}\r\n".encode("latin-1") for name, value in headers.items()]
        self.transport.write(b"".join([STATUS_LINE[problem.status], *lines, b"\r\n", body]))
        if self.transport.can_write_eof():
            # As above: what the client still sends is read, for a moment, so that it gets to read this.
            self.transport.write_eof()
            self._expect_within(self._patience.linger_s)
        else:
            self.transport.close()


def _in_pieces(app: ASGI3Application) -> ASGI3Application:
    """The same app, whose answers leave it no faster than the client takes them.

    Written at once, an answer would count as sent while it still lies in this process; and over TLS nobody would know
    that it does.
    """

    async def app_in_pieces(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        async def send_in_pieces(message: ASGISendEvent) -> None:
            if message["type"] != "http.response.body" or len(message.get("body", b"")) <= _PIECE_BYTES:
                await send(message)
                return
            body, more_body = message["body"], message.get("more_body", False)
            for start in range(0, len(body), _PIECE_BYTES):
                end = start + _PIECE_BYTES
                is_last = end >= len(body)
                await send(
                    {"type": "http.response.body", "body": body[start:end], "more_body": more_body or not is_last}
                )

        await app(scope, receive, send_in_pieces)

    return app_in_pieces


def _head_too_large() -> HTTPException:
    return HTTPException(431, f"the headers must be at most {MAX_FIELDS}, with at most {MAX_HEAD_BYTES} bytes in all")
