"""Requests that a page of another site lets a browser send: refused where the browser itself would not ask first.

A browser sends JSON to a foreign server only after a preflight (`cors.py`), but a form with files at once.
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from server.errors import ForeignPageError

__all__ = ["refuse_foreign_page"]

_OURS = frozenset({"same-origin", "none"})
"""What a browser says of a page of ours, and of an address that a person has typed."""


def refuse_foreign_page(headers: Headers, allowed_origins: Collection[str]) -> None:
    """Refuse a request that comes from a page of another origin.

    Programs that are no browsers send neither header, and pass.

    Args:
        headers: of the request.
        allowed_origins: `CORS_ORIGINS`.

    Raises:
        ForeignPageError: it does.
    """
    origin = headers.get("origin")
    if origin in allowed_origins:
        return
    site = headers.get("sec-fetch-site")
    if site is not None:
        is_ours = site in _OURS
    else:
        is_ours = origin is None or urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
    if not is_ours:
        raise ForeignPageError("a page of another site sent this form; only the origins in CORS_ORIGINS may")
