"""systemd notifications: ready, watchdog, status, stopping.

The protocol is sd_notify(3): datagrams of `NAME=value` lines to the socket that `NOTIFY_SOCKET` names. Written here
rather than taken from a package: what there is either has not been released for years or wants systemd's C headers, and
this is all of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, MutableMapping
from typing import Final, Self

__all__ = ["ServiceManager"]

_STATUS_INTERVAL_S: Final = 10.0
"""Between two looks at how it is, where no watchdog wants more."""
_PINGS_A_WATCHDOG: Final = 2
"""As sd_watchdog_enabled(3) advises."""


class ServiceManager:
    """The service manager that wants notifications. Without one, notifying does nothing."""

    def __init__(self, address: str | None, watchdog_s: float | None = None) -> None:
        """Set the address to notify.

        Args:
            address: of its datagram socket, a path or `@` and an abstract name; None: nobody.
            watchdog_s: seconds of silence after which it ends this process; None: never.
        """
        is_abstract = address is not None and address.startswith("@")
        self._address = f"\0{address[1:]}" if address and is_abstract else address
        self._interval_s = _STATUS_INTERVAL_S if watchdog_s is None else watchdog_s / _PINGS_A_WATCHDOG
        self._notifying: asyncio.Task[None] | None = None

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str]) -> Self:
        """Take what systemd has left in the environment out of it: the engine process has nothing to say to it."""
        address = environment.pop("NOTIFY_SOCKET", None)
        watchdog_us = environment.pop("WATCHDOG_USEC", "")
        is_for_us = environment.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        is_watched = is_for_us and watchdog_us.isdecimal() and int(watchdog_us) > 0
        return cls(address or None, int(watchdog_us) / 1e6 if is_watched else None)

    def ready(self, status: Callable[[], str]) -> None:
        """Notify that the server listens; from now on the watchdog and the status too, at regular intervals."""
        if self._address is None:
            return
        self._notify(READY=1, STATUS=status())
        self._notifying = asyncio.create_task(self._keep_notifying(status), name="sd_notify")

    def stopping(self, timeout_s: float) -> None:
        """The server stops, and takes up to so many seconds for it, whatever TimeoutStopSec says."""
        self._notify(STOPPING=1, EXTEND_TIMEOUT_USEC=round(timeout_s * 1e6))

    async def close(self) -> None:
        """Stop notifying. Does nothing the second time."""
        if self._notifying is not None:
            self._notifying.cancel()
            await asyncio.gather(self._notifying, return_exceptions=True)

    async def _keep_notifying(self, status: Callable[[], str]) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            self._notify(WATCHDOG=1, STATUS=status())

    def _notify(self, **values: object) -> None:
        if self._address is None:
            return
        message = "\n".join(f"{name}={value}" for name, value in values.items())
        # Never waits: a manager that does not read must not stop the loop that it asks about.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notes:
            notes.settimeout(0)
            notes.sendto(message.encode(), self._address)
