"""Client timeouts: how long each part of a request, or the reading of its response, may take."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ClientTimeouts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTimeouts:
    """Seconds. Only stalled or hostile clients reach these; the slowest honest connection stays far below."""

    head_s: float = 20.0
    """From a request's first byte (or the connection's beginning) to the last of its headers, however it trickles."""
    body_s: float = 20.0
    """For the whole body, ..."""
    body_bytes_per_s: float = 500.0
    """... and a second more for each so many bytes that have come. The default of Apache's mod_reqtimeout."""
    idle_s: float = 75.0
    """Between two requests on one connection. Longer than clients and proxies keep theirs: a connection that is closed
    in the moment in which it is used again is an error for callers who may not repeat the request."""
    linger_s: float = 5.0
    """For what a client still sends after its answer, before the connection is closed."""
    unread_s: float = 60.0
    """Without the client's machine taking a single byte of its answer. The kernel's (TCP_USER_TIMEOUT)."""
