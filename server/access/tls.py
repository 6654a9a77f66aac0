"""The TLS certificate that TLS_CERT and TLS_KEY name: read once, at the start."""

from __future__ import annotations

import ssl
from typing import NoReturn

from server.config import REPOSITORY, Settings, StartError

__all__ = ["tls_context"]


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """The TLS context that HTTPS is served with; None is plain HTTP.

    Raises:
        StartError: the files cannot be used; one line.
    """
    if settings.tls_cert is None and settings.tls_key is None:
        return None
    if settings.tls_cert is None or settings.tls_key is None:
        raise StartError("TLS_CERT and TLS_KEY must be set together, or neither")
    chain, key = REPOSITORY / settings.tls_cert, REPOSITORY / settings.tls_key

    def refuse_password() -> NoReturn:
        raise StartError(
            f"TLS_KEY {key} has a password, which is not supported: remove it (`openssl pkey`), and let only the "
            "server's user read the file"
        )

    for name, path in (("TLS_CERT", chain), ("TLS_KEY", key)):
        try:
            path.open("rb").close()
        except OSError as error:
            raise StartError(f"{name} {path} cannot be read: {error.strerror}") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(chain, key, password=refuse_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise StartError(f"TLS_KEY {key} is not the key of the certificate in TLS_CERT {chain}") from None
        reason = error.reason.replace("_", " ").lower() if error.reason else "they are not PEM files"
        raise StartError(f"TLS_CERT {chain} and TLS_KEY {key} cannot be used: {reason}") from None
    return context
