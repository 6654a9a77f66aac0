"""Authentication middleware: leaves a `Caller` on each request, or refuses it with 401.

With API keys everybody needs one, programs on this machine too. Without any, this machine is served and nobody else
(`network.py`). The operator's socket needs none, nor do the paths that are open to all.
"""

from __future__ import annotations

import base64
from typing import Final
from urllib.parse import parse_qsl, unquote_to_bytes

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from server.access.caller import ANONYMOUS, LOCAL_CALLER, OPERATOR, Caller
from server.access.key_ring import KeyRing
from server.access.network import is_operator, refuse_remote
from server.dialects.a1111 import is_a1111
from server.errors import NotAuthorisedError
from server.store.api_keys import KEY_PREFIX

__all__ = ["OPEN_PATHS", "SIGNED_FOLDER", "Authentication", "is_open"]

OPEN_PATHS: Final = frozenset({"/", "/docs", "/openapi.json", "/livez", "/readyz", "/health"})
"""What tells about the server is told to everybody."""
_OPEN_FOLDER: Final = "/static/"
SIGNED_FOLDER: Final = "/v1/images/files/"
"""Pictures whose addresses are signed (`routes/openai/signed_urls.py`), for programs that fetch them without a key."""

_KEY_PARAMETERS: Final = frozenset({"api_key", "apikey", "x_api_key", "access_token", "token", "key"})
"""Names under which people put keys into addresses."""

_USE_THE_HEADER: Final = "send it in the header Authorization: Bearer KEY (or X-API-Key: KEY)"


class Authentication:
    """Authenticates each request by its API key, or answers 401. Takes microseconds and no I/O.

    Wrong keys are not counted: a key cannot be guessed (32 characters or more), and an address that fails often is
    shared with callers whose keys are good.
    """

    def __init__(self, app: ASGIApp, *, keys: KeyRing) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass with its caller, or refuse it.

        Raises:
            NotAuthorisedError: it has no key, or a wrong one.
        """
        if scope["type"] == "http":
            scope.setdefault("state", {})["caller"] = self._caller(scope)
        await self._app(scope, receive, send)

    def _caller(self, scope: Scope) -> Caller:
        if is_operator(scope):
            return OPERATOR
        _refuse_key_in_url(scope)
        if is_open(scope.get("method", "GET"), scope["path"]):
            return ANONYMOUS
        headers = Headers(scope=scope)
        if not self._keys.is_needed:
            refuse_remote(scope.get("client"), headers)
            return LOCAL_CALLER
        return self._keys.caller_of(_presented(headers, takes_passwords=is_a1111(scope["path"])))


def is_open(method: str, path: str) -> bool:
    """Whether a request needs no key: it is told to everybody, or its address is signed."""
    if path == "/":
        return method in {"GET", "HEAD"}
    return path in OPEN_PATHS or path.startswith((_OPEN_FOLDER, SIGNED_FOLDER))


def _password_of(credentials: str) -> str:
    """The password of `Basic` credentials; empty where there is none. Some clients send the word `undefined`."""
    try:
        return base64.b64decode(credentials, validate=True).decode("latin-1").partition(":")[2]
    except ValueError:
        return ""


def _presented(headers: Headers, *, takes_passwords: bool) -> bytes:
    """The text that is sent as a key.

    Args:
        headers: of the request.
        takes_passwords: whether it may be the password of whatever user.

    Raises:
        NotAuthorisedError: there is none, or more than one.
    """
    texts = {*headers.getlist("x-api-key"), *headers.getlist("api-key")}
    for authorization in headers.getlist("authorization"):
        scheme, _, text = authorization.partition(" ")
        # Other schemes are a proxy's own business, as long as the key comes by itself.
        if scheme.lower() == "bearer":
            texts.add(text.strip(" "))
        elif scheme.lower() == "basic" and takes_passwords:
            texts.add(_password_of(text.strip(" ")))
    texts.discard("")
    if not texts:
        raise NotAuthorisedError(f"an API key is required: {_USE_THE_HEADER}")
    if len(texts) > 1:
        raise NotAuthorisedError("the headers Authorization and X-API-Key contain different API keys: send only one")
    return texts.pop().encode("latin-1")  # as Starlette has read it: byte by byte


def _refuse_key_in_url(scope: Scope) -> None:
    """Addresses are logged, kept in histories and passed on; a key in one is a key given away.

    Raises:
        NotAuthorisedError: there is one, it seems.
    """
    query: bytes = scope["query_string"]
    names = [name for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True)] if query else []
    prefix = KEY_PREFIX.encode()
    is_in_query = prefix in unquote_to_bytes(query) or any(
        name.lower().replace("-", "_") in _KEY_PARAMETERS for name in names
    )
    raw_path: bytes = scope.get("raw_path") or scope["path"].encode()
    if prefix in unquote_to_bytes(raw_path):
        # For everybody who will look at this request, and log or repeat its path.
        scope["path"], scope["raw_path"] = "/", b"/"
        is_in_query = True
    if is_in_query:
        raise NotAuthorisedError(
            f"an API key in a URL is exposed (in logs and histories): rotate it, and {_USE_THE_HEADER}"
        )
