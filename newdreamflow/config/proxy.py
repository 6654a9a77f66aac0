"""Trusted proxies: middleware that takes the client's address from their headers, and drops all others' headers."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from typing import Final

from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase

__all__ = ["TrustedProxies"]

_FORWARDING: Final = (
    "HTTP_X_FORWARDED_FOR",
    "HTTP_X_FORWARDED_PROTO",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PORT",
    "HTTP_X_REAL_IP",
    "HTTP_FORWARDED",
)


class TrustedProxies:
    """Makes `REMOTE_ADDR` the caller's own address, for limits and locks to count by.

    From a peer in `SITE_TRUSTED_PROXIES` it is the last address of `X-Forwarded-For` that is no trusted proxy's itself:
    what stands before it the caller may have written. From any other peer no forwarding header reaches the site.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response
        self._trusted: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network] = settings.SITE_TRUSTED_PROXIES

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Answer."""
        meta = request.META
        if not self._is_trusted(meta.get("REMOTE_ADDR", "")):
            for name in _FORWARDING:
                meta.pop(name, None)
            return self._get_response(request)
        meta["REMOTE_ADDR"] = self._caller(meta.get("HTTP_X_FORWARDED_FOR", "")) or meta["REMOTE_ADDR"]
        return self._get_response(request)

    def _caller(self, hops: str) -> str | None:
        nearest = None
        for hop in reversed(hops.split(",")):
            address = _address(hop)
            if address is None:
                break
            if not self._is_trusted(str(address)):
                return str(address)
            nearest = nearest or str(address)
        # All of them are proxies': the one that ours names itself. Those before it a caller could have written.
        return nearest

    def _is_trusted(self, text: str) -> bool:
        address = _address(text)
        return address is not None and any(address in network for network in self._trusted)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.strip())
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
