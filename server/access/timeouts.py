"""How long a client may take over each part of a request before the server stops to wait for it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Patience"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Seconds. Far beyond what the slowest honest connection needs: a client that is cut off does not mean to end."""

    handshake_s: float = 15.0
    """For the TLS handshake."""
    head_s: float = 20.0
    """From a request's first byte (or the connection's beginning) to the last of its headers, however it trickles."""
    body_s: float = 20.0
    """For the whole body, ..."""
    body_bytes_per_s: float = 500.0
    """... and a second more for each so many bytes that have come. The default of Apache's mod_reqtimeout."""
    idle_s: float = 75.0
    """Between two requests on one connection. Longer than clients and proxies keep theirs: what a server closes in the
    moment in which it is used again is an error for whoever may not repeat the request."""
    linger_s: float = 5.0
    """For what a client still sends after its answer, before the connection is closed over its head."""
    read_s: float = 60.0
    """For taking the next part of an answer that no longer fits into the buffers between, ..."""
    read_bytes_per_s: float = 500.0
    """... so many bytes of it for each of those seconds, at the least: at a byte a minute an answer takes years."""
