"""TLS checks: do certificate and key match, and would requests cross a network in clear text?"""

from __future__ import annotations

from collections.abc import Iterator

from server.access.network import is_loopback
from server.access.tls import tls_context
from server.cli.doctor.finding import Finding
from server.config import Settings, StartError

__all__ = ["look_at_tls"]


def look_at_tls(settings: Settings) -> Iterator[Finding]:
    """Look at the settings TLS_CERT and TLS_KEY as a start would."""
    try:
        context = tls_context(settings)
    except StartError as error:
        yield Finding("tls", "FAIL", str(error), "correct TLS_CERT and TLS_KEY, or take both out")
        return
    if context is not None:
        yield Finding("tls", "ok", f"{settings.tls_cert} and its key are usable")
    elif is_loopback(settings.host):
        yield Finding("tls", "ok", "plain HTTP, on this machine only")
    else:
        yield Finding(
            "tls",
            "warn",
            f"HOST={settings.host} is served in clear text: keys, prompts and pictures can be read in transit",
            "set TLS_CERT and TLS_KEY, or HOST=127.0.0.1 and a proxy that speaks HTTPS (docs/operations.md)",
        )
