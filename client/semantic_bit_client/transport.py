"""Settings of the HTTP library for both clients (timeouts, limits), and the mapping of its errors to ours."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import httpx2

from semantic_bit_client.calls import Call, Reply
from semantic_bit_client.deadline import Deadline
from semantic_bit_client.errors import NoConnection
from semantic_bit_client.job_follower import JobFollower
from semantic_bit_client.models import JobState
from semantic_bit_client.retries import Retries
from semantic_bit_client.version import VERSION

__all__ = ["ResponseReader", "Settings", "failures_named"]

_KEY: Final = re.compile(r"[!-~]+")
_LARGEST_ANSWER: Final = 256 * 2**20
"""Bytes; many times the largest picture."""
_LONGEST_ANSWER_S: Final = 120.0
"""Timeout of a whole answer: a server that sends a byte now and then is not waited for any longer."""
_SHORTEST_TIMEOUT_S: Final = 0.001
"""0 would mean that a socket does not wait at all."""


@functools.cache
def _tls_context(is_tls: bool, _file: str | None, _folder: str | None) -> ssl.SSLContext:  # noqa: FBT001 -- a cache's key
    """Whom to trust: made once for all clients, since reading this machine's certificates takes tenths of a second."""
    return httpx2.create_ssl_context() if is_tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a client was made with.

    Raises:
        ValueError: the URL is not valid, or the key could not be sent.
    """

    base_url: str
    api_key: str | None = field(repr=False)
    connect_timeout_s: float
    read_timeout_s: float
    retries: Retries

    def __post_init__(self) -> None:
        try:
            url = httpx2.URL(self.base_url)
        except httpx2.InvalidURL:
            url = httpx2.URL("")
        if url.scheme not in {"http", "https"} or not url.host:
            raise ValueError(f"base_url must be like http://127.0.0.1:8000, not {self.base_url!r}")
        if url.userinfo or url.query or url.fragment:
            # Not shown: there may be a password in it.
            raise ValueError("base_url must be without user, query and fragment; the key is `api_key`")
        if self.api_key is not None and not _KEY.fullmatch(self.api_key):
            raise ValueError("api_key must be printable ASCII without spaces")  # and is not shown

    def of_client(self) -> dict[str, Any]:
        """Arguments for `httpx2.Client` and `httpx2.AsyncClient`."""
        headers = {"User-Agent": f"semantic-bit-client/{VERSION}"}
        if self.api_key is not None:
            headers["Authorization"] = f"Bearer {self.api_key}"
        return {
            "base_url": self.base_url,
            "headers": headers,
            # A redirect does not take the key to another host.
            "follow_redirects": False,
        }

    def of_transport(self) -> dict[str, Any]:
        """Arguments for `httpx2.HTTPTransport` and `httpx2.AsyncHTTPTransport`.

        With a transport of its own the client does not go through the proxies that the environment names: the server
        is a neighbour, and its key no business of theirs.
        """
        # Each job that is followed holds a connection: their number is the caller's business.
        return {
            "limits": httpx2.Limits(max_connections=None, max_keepalive_connections=20),
            "verify": _tls_context(
                self.base_url.lower().startswith("https:"),
                os.environ.get("SSL_CERT_FILE"),
                os.environ.get("SSL_CERT_DIR"),
            ),
        }

    def of_call(self, call: Call[Any], deadline: Deadline) -> dict[str, Any]:
        """Arguments for `stream` of either."""
        return {
            "method": call.method,
            "url": call.path,
            "params": dict(call.query),
            "headers": {"Accept": "application/json"} | dict(call.headers),
            "content": call.body,
            "timeout": self._timeout(self.read_timeout_s if call.silence_s is None else call.silence_s, deadline),
        }

    def follower(self, state: JobState, deadline: Deadline) -> JobFollower:
        """The way along one job."""
        return JobFollower(
            state.id, retries=self.retries, read_timeout_s=self.read_timeout_s, eta_s=state.eta_s, deadline=deadline
        )

    def _timeout(self, read_s: float, deadline: Deadline) -> httpx2.Timeout:
        most_s = max(deadline.rest_s, _SHORTEST_TIMEOUT_S)
        return httpx2.Timeout(
            connect=min(self.connect_timeout_s, most_s),
            read=min(read_s, most_s),
            write=min(self.read_timeout_s, most_s),
            pool=None,
        )


class ResponseReader:
    """An answer whose content arrives piece by piece."""

    def __init__(self, response: httpx2.Response, deadline: Deadline) -> None:
        self._response = response
        self._content = bytearray()
        self._deadline = deadline
        self._longest = Deadline(_LONGEST_ANSWER_S)

    def add(self, piece: bytes) -> None:
        """Take the next piece.

        Raises:
            NoConnection: it has become too much, or takes too long.
            TookTooLong: the caller's time is over.
        """
        self._content += piece
        self._deadline.left_s()
        if len(self._content) > _LARGEST_ANSWER or not self._longest.rest_s:
            raise NoConnection(f"the answer did not end within {_LONGEST_ANSWER_S:g} s and {_LARGEST_ANSWER} bytes")

    def reply(self) -> Reply:
        """The answer, now that it is whole."""
        headers = {name.lower(): value for name, value in self._response.headers.items()}
        return Reply(self._response.status_code, headers, bytes(self._content))


@contextlib.contextmanager
def failures_named(job_id: str | None, deadline: Deadline) -> Iterator[None]:
    """Raise the HTTP library's failures as ours.

    Raises:
        NoConnection: the request did not get there, or the answer not back.
        TookTooLong: neither did within the caller's time.
    """
    try:
        yield
    except httpx2.RequestError as error:
        deadline.left_s(job_id)
        reason = str(error) or type(error).__name__
        raise NoConnection(f"no answer from the server: {reason}", job_id=job_id) from error
