"""The engines that the settings ask for: of this host's devices, of addresses, or behind one address."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, TypedDict
from urllib.parse import urlsplit

import structlog

from server.config import REPOSITORY, Settings, StartError
from server.executors.balanced import BalancedEngines
from server.executors.base import Executor
from server.executors.child_process import ChildProcessExecutor
from server.executors.devices import local_devices
from server.executors.engine_process import EngineProcess, configuration_of
from server.executors.pool import LOCAL, EnginePool
from server.executors.remote import EngineAddress, RemoteEngine

__all__ = ["engines_of", "local_engines", "remote_engines"]

_log = structlog.get_logger("server.engine")

_LOOK_UP_S: Final = 5.0
"""Between two looks at the names in ENGINES."""
_MISSES: Final = 3
"""Look-ups in a row without an address, after which its engine gets no more jobs: an answer may be cut short."""


class _Remote(TypedDict):
    """What every remote engine is told."""

    token: str | None
    tls: ssl.SSLContext | None
    allowed_silence_s: float


def engines_of(settings: Settings, begun: EngineProcess | None = None) -> EnginePool:
    """Every engine of the gateway.

    Args:
        settings: which.
        begun: the first local engine's process, where it has been started already.

    Raises:
        StartError: ENGINE_CA cannot be read.
    """
    executors: dict[str, Executor] = dict(local_engines(settings, begun))
    if settings.engine_pool_url is not None:
        executors["pool"] = BalancedEngines(EngineAddress(settings.engine_pool_url), **_remote(settings))
    follow = _Followed(settings).follow if settings.engines else None
    return EnginePool(executors, follow=follow)


def local_engines(settings: Settings, begun: EngineProcess | None = None) -> Mapping[str, ChildProcessExecutor]:
    """An engine process for each device of this host that is to draw, by name."""
    devices = local_devices(settings)
    engines = {}
    for number, device in enumerate(devices):
        name = LOCAL if len(devices) == 1 else f"{LOCAL}-{number} ({device})"
        configuration = configuration_of(settings, device)
        first = begun if number == 0 else None
        engines[name] = ChildProcessExecutor(configuration, begun=first, watchdog_s=settings.watchdog_min)
    return engines


async def remote_engines(settings: Settings) -> tuple[dict[str, RemoteEngine], dict[str, str]]:
    """The engines elsewhere as they are found now, by name and not started; and which URLs have none, with the reason.

    Raises:
        StartError: ENGINE_CA cannot be read.
    """
    engines: dict[str, RemoteEngine] = {}
    troubles: dict[str, str] = {}
    if settings.engine_pool_url is not None:
        address = EngineAddress(settings.engine_pool_url)
        engines[settings.engine_pool_url] = BalancedEngines(address, **_remote(settings))
    for url in settings.engines:
        try:
            found = await _look_up(url)
        except OSError as error:
            troubles[url] = error.strerror or str(error)
        else:
            engines |= {name: RemoteEngine(address, **_remote(settings)) for name, address in found.items()}
    return engines, troubles


def _remote(settings: Settings) -> _Remote:
    token = settings.engine_token
    return {
        "token": None if token is None else token.get_secret_value(),
        "tls": _tls(settings),
        "allowed_silence_s": settings.watchdog_min,
    }


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.engine_ca is None:
        return None
    path = REPOSITORY / settings.engine_ca
    try:
        return ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise StartError(f"ENGINE_CA {path} cannot be used: {error.strerror or error}") from None


class _Followed:
    """The engines at the addresses that the names in ENGINES have, looked up again and again."""

    def __init__(self, settings: Settings) -> None:
        self._urls = settings.engines
        self._remote = _remote(settings)
        self._found: dict[str, EngineAddress] = {}
        self._misses: dict[str, int] = {}

    async def follow(self, pool: EnginePool) -> None:
        """Add an engine for each new address; one whose address is gone gets no more jobs, and is then let go."""
        while True:
            for url in self._urls:
                with suppress(OSError):  # a name server that does not answer: keep what there is
                    await self._compare(pool, url, await _look_up(url))
            for seat in pool.seats:
                if seat.is_leaving and not seat.job_ids:
                    _log.info("an engine has left", engine=seat.name)
                    self._found.pop(seat.name)
                    await pool.remove(seat.name)
            await asyncio.sleep(_LOOK_UP_S)

    async def _compare(self, pool: EnginePool, url: str, addresses: Mapping[str, EngineAddress]) -> None:
        for name, address in addresses.items():
            if name not in self._found:
                self._found[name] = address
                _log.info("an engine has joined", engine=name)
                await pool.add(name, RemoteEngine(address, **self._remote))
        for seat in pool.seats:
            if seat.name != url and not seat.name.startswith(f"{url} ("):
                continue
            is_missing = seat.name not in addresses
            self._misses[seat.name] = self._misses.get(seat.name, 0) + 1 if is_missing else 0
            seat.is_leaving = self._misses[seat.name] >= _MISSES


async def _look_up(url: str) -> Mapping[str, EngineAddress]:
    """The engines behind a URL, by name: one for each address that its host name has.

    Raises:
        OSError: the name cannot be looked up.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    ips = sorted({str(entry[4][0]) for entry in found})
    if host in ips:
        return {url: EngineAddress(url)}
    addresses = {}
    for ip in ips:
        shown = f"[{ip}]" if ":" in ip else ip
        addresses[f"{url} ({ip})"] = EngineAddress(f"{parts.scheme}://{shown}:{port}", f"{host}:{port}")
    return addresses
