"""Unknown host names: middleware that refuses them with a plain text that says what a proxy must send."""

from __future__ import annotations

import logging
from collections.abc import Callable

from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

__all__ = ["KnownHosts"]

logger = logging.getLogger(__name__)


class KnownHosts:
    """Answers 400 to a `Host` that is not in `ALLOWED_HOSTS`, before anything else reads it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Answer."""
        try:
            request.get_host()
        except DisallowedHost:
            host = ascii(request.META.get("HTTP_HOST", ""))[:80]
            logger.warning("host name %s is not the site's", host)
            return HttpResponse(
                f"Unknown host name {host}. This site answers at {settings.SITE_URL} only.\n"
                "If it stands behind a proxy, the proxy must pass on the Host header of its caller "
                "(nginx: proxy_set_header Host $host;). The host name is set by SITE_URL.\n",
                status=400,
                content_type="text/plain; charset=utf-8",
                headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
            )
        return self._get_response(request)
