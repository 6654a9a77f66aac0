"""Loopback only: without API keys, requests from other machines are refused. Recognises the operator's socket.

Peer, `Host` and forwarding headers are looked at together. The peer alone is not enough: a web page in a local browser
(DNS rebinding) and a reverse proxy on this machine are loopback peers too.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from server.errors import NotAuthorisedError

__all__ = ["FORWARDING_HEADERS", "address_in", "is_loopback", "is_operator", "refuse_remote"]

FORWARDING_HEADERS = (
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-forwarded-server",
    "x-real-ip",
    "cf-connecting-ip",
    "true-client-ip",
)
"""What only a proxy writes: a request that has one of them comes from elsewhere."""


def is_operator(scope: Scope) -> bool:
    """Whether a request came over the operator's unix socket (`operator_socket.py`), which only the operator can open.

    Decided by the local end of the connection, which the caller cannot choose. That the peer has no address would not
    do: the same is true of a public unix socket behind a reverse proxy, and of a TCP peer that has already hung up.
    """
    name: str | None = getattr(scope["app"].state, "operator_socket_name", None)
    server = scope.get("server")
    return name is not None and server is not None and tuple(server) == (name, None)


def refuse_remote(peer: tuple[str, int] | None, headers: Headers) -> None:
    """Refuse a request that does not come from this machine.

    Raises:
        NotAuthorisedError: by its peer, its `Host` or the headers of a proxy.
    """
    hosts = headers.getlist("host")
    forwarding = [name for name in FORWARDING_HEADERS if name in headers]
    if peer is None or not is_loopback(peer[0]):
        reason = "this request comes from another machine"
    elif forwarding:
        reason = f"this request was forwarded (it has the header {forwarding[0]})"
    elif len(hosts) != 1 or not is_loopback(_host_name(hosts[0])):
        reason = "this request's Host is not a loopback name"
    else:
        return
    raise NotAuthorisedError(
        f"{reason}; while the server has no API keys it accepts requests only from this machine, at http://127.0.0.1; "
        "create one on the server's machine with `python -m server keys create --name NAME`"
    )


def _host_name(host: str) -> str:
    """The name in a `Host` header, without its port; empty if it is none."""
    try:
        parts = urlsplit(f"//{host}")
        is_plain = parts.netloc == host and parts.username is None and parts.port != 0
    except ValueError:
        return ""
    else:
        return parts.hostname or "" if is_plain else ""


def is_loopback(name: str) -> bool:
    """Whether a host name or an address means this machine and no other."""
    address = address_in(name)
    return name.lower() == "localhost" or (address is not None and address.is_loopback)


def address_in(text: str) -> IPv4Address | IPv6Address | None:
    """The address that a text is, without the IPv6 form of one of IPv4; None if it is none."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
