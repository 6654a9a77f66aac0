"""From where the service may be used while it has no API keys: this machine, and nowhere else; and who operates it.

Peer, `Host` and forwarding headers are looked at together. The peer alone is not enough: a web page in a local browser
(DNS rebinding) and a reverse proxy on this machine are loopback peers too.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from server.errors import UnauthorizedError

__all__ = ["is_loopback", "is_operator", "refuse_strangers"]

_FORWARDING_HEADERS = (
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-server",
    "x-real-ip",
    "cf-connecting-ip",
    "true-client-ip",
)


def is_operator(scope: Scope) -> bool:
    """Whether a request came over the operator's unix socket (`operator_socket.py`), which nobody else can open.

    Decided by the local end of the connection, which the caller cannot choose. That the peer has no address would not
    do: the same is true of a public unix socket behind a reverse proxy, and of a TCP peer that has already hung up.
    """
    name: str | None = getattr(scope["app"].state, "operator_socket_name", None)
    server = scope.get("server")
    return name is not None and server is not None and tuple(server) == (name, None)


def refuse_strangers(peer: tuple[str, int] | None, headers: Headers) -> None:
    """Refuse a request that does not come from this machine.

    Raises:
        UnauthorizedError: by its peer, its `Host` or the headers of a proxy.
    """
    hosts = headers.getlist("host")
    forwarding = [name for name in _FORWARDING_HEADERS if name in headers]
    if peer is None or not is_loopback(peer[0]):
        reason = "this request comes from another machine"
    elif forwarding:
        reason = f"this request was forwarded (it carries {forwarding[0]})"
    elif len(hosts) != 1 or not is_loopback(_host_name(hosts[0])):
        reason = "this request's Host is not a loopback name"
    else:
        return
    raise UnauthorizedError(
        f"{reason}; as long as the server has no API keys it serves only this machine, at http://127.0.0.1; "
        "on the server's machine, `python -m server keys create --name NAME` makes one"
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
    if name.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    else:
        mapped = getattr(address, "ipv4_mapped", None)
        return (mapped or address).is_loopback
