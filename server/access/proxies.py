"""Trusted proxies: the client's address from `X-Forwarded-*` headers, only from `TRUSTED_PROXIES`."""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from server.access.network import FORWARDING_HEADERS, address_in

__all__ = ["TrustedProxies"]

_Address = IPv4Address | IPv6Address

_SAID_BY_PROXIES = frozenset(name.encode() for name in FORWARDING_HEADERS)
"""Taken off a request whose proxy is believed: it does not mean any more that somebody unknown has forwarded it."""


_WITH_PORT = re.compile(r"\[([^\]]+)\](?::\d+)?|([^:]+):\d+")


class TrustedProxies:
    """Puts the client's own address, scheme and host into the scope of what a trusted proxy has forwarded.

    The client is the rightmost address in `X-Forwarded-For` that is not itself a trusted proxy: everything to its left
    is only the client's word. Where all are trusted it is the rightmost that is not this machine, who really asked the
    nearest proxy: any machine of a trusted network can write the others, and say that it is this one. A proxy that does
    not send that header, or sends something else in it, is not believed in anything, and its headers stay, so that the
    request still counts as forwarded by a stranger. `Forwarded` (RFC 7239) is never believed: a proxy that sets the one
    passes the other on as the client wrote it.
    """

    def __init__(self, app: ASGIApp, networks: Collection[IPv4Network | IPv6Network]) -> None:
        self._app = app
        self._networks = networks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request as its client sent it."""
        if scope["type"] == "http" and scope.get("client") is not None:
            peer = address_in(scope["client"][0])
            if peer is not None and self._is_trusted(peer):
                scope = self._as_the_client_sent_it(scope, peer)
        await self._app(scope, receive, send)

    def _as_the_client_sent_it(self, scope: Scope, peer: _Address) -> Scope:
        headers = Headers(scope=scope)
        client = self._client(peer, ",".join(headers.getlist("x-forwarded-for")))
        if client is None:
            return scope
        kept = [(name, value) for name, value in scope["headers"] if name not in _SAID_BY_PROXIES]
        host = _last_of(headers.getlist("x-forwarded-host"))
        if host:
            kept = [(b"host", host.encode("latin-1")), *(pair for pair in kept if pair[0] != b"host")]
        scheme = _last_of(headers.getlist("x-forwarded-proto")).lower()
        return {
            **scope,
            "client": (str(client), 0),
            "scheme": scheme if scheme in {"http", "https"} else scope["scheme"],
            "headers": kept,
        }

    def _client(self, peer: _Address, hops: str) -> _Address | None:
        """The last hop that is not a trusted proxy, else the last; None if one of them is not an address."""
        client, nearest = peer, None
        for hop in reversed(hops.split(",")):
            named = address_in(_without_port(hop.strip()))
            if named is None:
                return None
            client = named
            is_trusted = self._is_trusted(client)
            if client.is_loopback and not is_trusted:
                break
            if not client.is_loopback:
                if not is_trusted:
                    return client
                nearest = nearest or client
        # A loopback address is this machine's only if all that have passed it on are on this machine.
        return nearest or (client if peer.is_loopback else peer)

    def _is_trusted(self, address: _Address) -> bool:
        return any(address in network for network in self._networks)


def _without_port(hop: str) -> str:
    """`1.2.3.4:5678` and `[::1]:5678`, as some proxies write it, without the port."""
    found = _WITH_PORT.fullmatch(hop)
    return (found[1] or found[2]) if found else hop


def _last_of(values: list[str]) -> str:
    """What the nearest proxy has added; those before it only passed theirs on."""
    return ",".join(values).rpartition(",")[2].strip()
