"""The certificate that the server shows: checked as a client would, and taken up again when its files are renewed."""

from __future__ import annotations

import contextlib
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import structlog

from server.config import StartError

__all__ = ["Certificate"]

_log = structlog.get_logger("server")

_SOON = 1 / 5
"""Share of a certificate's life before whose end it should have been renewed, however long or short it is."""
_FLIGHTS = 4
"""Rounds that a TLS handshake may need; 1.3 takes two."""


class Certificate:
    """A certificate chain and its key, in files. Belongs to the event loop."""

    def __init__(self, chain: Path, key: Path) -> None:
        """Load it.

        Args:
            chain: PEM; the server's certificate first, then those it hangs on.
            key: PEM; without a password.

        Raises:
            StartError: it could not be served with; one line.
        """
        self._chain = chain
        self._key = key
        self._version = self._version_of_files()
        self.context, self._validity = self._loaded()
        """For the next handshake; another one when the files have changed."""

    def renew(self) -> None:
        """Show the certificate that is in the files now, if they have changed; what cannot be used is logged, once."""
        version = self._version_of_files()
        if version == self._version:
            return
        self._version = version
        try:
            self.context, self._validity = self._loaded()
        except StartError as error:
            _log.error("the renewed certificate is not used; the last one still is", reason=str(error))
        else:
            self.report()

    def report(self) -> None:
        """Log until when it is good; a warning if that is soon."""
        not_before, not_after = self._validity
        is_soon = not_after - datetime.now(UTC) < (not_after - not_before) * _SOON
        log = _log.warning if is_soon else _log.info
        log("certificate ends soon" if is_soon else "certificate", not_after=not_after.isoformat())

    def _loaded(self) -> tuple[ssl.SSLContext, tuple[datetime, datetime]]:
        # A context of its own each time: a chain and a key that do not fit would spoil the one that is in use.
        context = _server_context()
        _read(context, self._chain, self._key)
        return context, _rehearse(context, self._chain)

    def _version_of_files(self) -> tuple[object, ...]:
        version: list[object] = []
        for path in (self._chain, self._key):
            with contextlib.suppress(OSError):
                status = path.stat()
                version += [status.st_ino, status.st_mtime_ns, status.st_size]
        return tuple(version)


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    return context


def _read(context: ssl.SSLContext, chain: Path, key: Path) -> None:
    """Read the files into the context.

    Raises:
        StartError: that cannot be.
    """

    def refuse_password() -> NoReturn:
        raise StartError(
            f"TLS_KEY {key} has a password, which is not supported: take it off (`openssl pkey`), and let nobody "
            "but the server read the file"
        )

    for name, path in (("TLS_CERT", chain), ("TLS_KEY", key)):
        try:
            path.open("rb").close()
        except OSError as error:
            raise StartError(f"{name} {path} cannot be read: {error.strerror}") from None
    try:
        context.load_cert_chain(chain, key, password=refuse_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise StartError(f"TLS_KEY {key} is not the key of the certificate in TLS_CERT {chain}") from None
        reason = error.reason.replace("_", " ").lower() if error.reason else "they are no PEM files"
        raise StartError(f"TLS_CERT {chain} and TLS_KEY {key} cannot be used: {reason}") from None
    except OSError as error:  # a renewal is writing them just now
        raise StartError(f"TLS_CERT {chain} and TLS_KEY {key} cannot be read: {error.strerror}") from None


def _rehearse(context: ssl.SSLContext, chain: Path) -> tuple[datetime, datetime]:
    """Shake hands with a client that trusts this certificate, and be told from when to when it does.

    Raises:
        StartError: even such a client would not go on: the certificate has expired, or is for something else.
    """
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        trusting.load_verify_locations(chain)
        client = trusting.wrap_bio(to_client, to_server)
        server = context.wrap_bio(to_server, to_client, server_side=True)
        for _ in range(_FLIGHTS):
            for side in (client, server):
                with contextlib.suppress(ssl.SSLWantReadError):
                    side.do_handshake()
    except ssl.SSLCertVerificationError as error:
        raise StartError(f"TLS_CERT {chain} would be refused by every client: {error.verify_message}") from None
    except ssl.SSLError as error:
        raise StartError(f"TLS_CERT {chain} cannot be used: {error.reason or error}") from None
    except OSError as error:
        raise StartError(f"TLS_CERT {chain} cannot be read: {error.strerror}") from None
    shown = client.getpeercert() or {}
    return _time(shown["notBefore"]), _time(shown["notAfter"])


def _time(text: object) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(text)), UTC)
