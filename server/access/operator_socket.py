"""The unix socket between the operator's command line and the running server: `DATA_DIR/server/admin.sock`.

It is mode 0600 in a folder of mode 0700: whoever can open it is the user the server runs as, or root. That is all the
authentication there is, so a request that came this way may do what no API key can (see `network.is_operator`).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

from server.config import StartError

__all__ = ["OperatorSocket", "address_of", "connect_to", "socket_path"]

_LONGEST_ADDRESS = 107
"""Bytes of a unix socket's path that Linux takes; `sun_path` in unix(7), less the NUL."""
_DESCRIPTORS = Path("/proc/self/fd")
_HALF_MADE = ".admin-*.sock"


def socket_path(folder: Path) -> Path:
    """Where the socket lies in the server's folder, `DATA_DIR/server`."""
    return folder / "admin.sock"


class OperatorSocket:
    """The listening end. `publish` when the folder's lock is held, `withdraw` before it is let go.

    Made under a name that nobody knows and then renamed, so that the last server's socket is replaced in one step, that
    a server which turns out to be the second one on this folder disturbs nothing, and that no other socket, whatever
    its path, can be taken for this one.
    """

    def __init__(self, folder: Path) -> None:
        """Bind it, beside its final place.

        Raises:
            StartError: the folder cannot be written to, or its path is too long for this system.
        """
        self._path = socket_path(folder)
        self._half_made = folder / _HALF_MADE.replace("*", secrets.token_hex(8))
        self._is_published = False
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        """Bound; whoever serves calls `listen`."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with address_of(self._half_made) as address:
                self.listener.bind(address)
            self._half_made.chmod(0o600)
        except OSError as error:
            self.listener.close()
            raise StartError(f"cannot make a socket in {folder}: {error.strerror or error}; set DATA_DIR") from None

    @property
    def name(self) -> str:
        """What a server reports as the local address of a connection to it."""
        address: str = self.listener.getsockname()
        return address

    def publish(self) -> None:
        """Put it where the command line looks. Only for the one server that holds the folder's lock."""
        self._half_made.rename(self._path)
        self._is_published = True
        for left_over in self._path.parent.glob(_HALF_MADE):
            left_over.unlink(missing_ok=True)

    def withdraw(self) -> None:
        """Take it away again. Does nothing the second time."""
        with contextlib.suppress(OSError):  # the folder may be gone or read-only by now; a stale socket does no harm
            self._half_made.unlink(missing_ok=True)
            if self._is_published:
                self._is_published = False
                self._path.unlink(missing_ok=True)


def connect_to(path: Path, timeout_s: float) -> socket.socket:
    """A connection to the server that listens at `path`.

    Raises:
        OSError: nobody listens there, or not to us.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        with address_of(path) as address:
            connection.connect(address)
    except OSError:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def address_of(path: Path) -> Iterator[str]:
    """A path to the same socket that is short enough to be an address; good while the context lasts."""
    if len(os.fsencode(path)) <= _LONGEST_ADDRESS:
        yield str(path)
    elif not _DESCRIPTORS.is_dir():
        raise OSError(f"a socket path may have at most {_LONGEST_ADDRESS} bytes, and {path} is longer")
    else:
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield f"{_DESCRIPTORS}/{descriptor}/{path.name}"
        finally:
            os.close(descriptor)
