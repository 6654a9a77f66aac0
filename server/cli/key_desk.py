"""Whom the command line asks about API keys: the running server, or the store itself when no server has it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar, get_args

from server.access.caller import Scope
from server.access.key_ring import KeyRing
from server.cli.errors import CommandError
from server.cli.running_server import RunningServer, running_server
from server.cli.stopped_server import store_opened
from server.errors import ServerError
from server.key_schemas import KeyView, KeyWithText

__all__ = ["KeyDesk", "key_desk"]

_T = TypeVar("_T")


class KeyDesk(Protocol):
    """Answers with the JSON of `key_schemas.py`. Every method raises `CommandError`."""

    def all(self) -> list[dict[str, Any]]:
        """Every key that was ever made, oldest first."""
        ...

    def create(self, name: str, scopes: list[str], expires_days: float | None) -> dict[str, Any]:
        """A new key, with its `text`."""
        ...

    def rotate(self, key_id: str, grace_hours: float) -> dict[str, Any]:
        """The key with a new `text`; the old one is taken for so many hours more."""
        ...

    def revoke(self, key_id: str) -> dict[str, Any]:
        """The key, which is not taken any more."""
        ...


@contextlib.contextmanager
def key_desk(folder: Path) -> Iterator[KeyDesk]:
    """Whoever has the keys of `DATA_DIR/server`, which is made when missing: the first key may come before the first
    start.

    Raises:
        CommandError: the server does not answer; or there is none, and the store cannot be opened.
    """
    server = running_server(folder)
    if server is not None:
        yield _OfRunningServer(server)
        return
    with store_opened(folder) as (store, runner):
        ring = KeyRing()
        runner.run(ring.open(store))
        try:
            yield _OfStoppedServer(ring, runner)
        finally:
            runner.run(ring.close())


class _OfRunningServer:
    def __init__(self, server: RunningServer) -> None:
        self._server = server

    def all(self) -> list[dict[str, Any]]:
        keys: list[dict[str, Any]] = self._server.ask("GET", "/v1/keys")["keys"]
        return keys

    def create(self, name: str, scopes: list[str], expires_days: float | None) -> dict[str, Any]:
        return self._server.ask("POST", "/v1/keys", {"name": name, "scopes": scopes, "expires_days": expires_days})

    def rotate(self, key_id: str, grace_hours: float) -> dict[str, Any]:
        return self._server.ask("POST", f"/v1/keys/{key_id}/rotate", {"grace_hours": grace_hours})

    def revoke(self, key_id: str) -> dict[str, Any]:
        return self._server.ask("POST", f"/v1/keys/{key_id}/revoke")


class _OfStoppedServer:
    def __init__(self, ring: KeyRing, runner: asyncio.Runner) -> None:
        self._ring = ring
        self._runner = runner

    def all(self) -> list[dict[str, Any]]:
        return [KeyView.of(key).model_dump() for key in self._ring.all()]

    def create(self, name: str, scopes: list[str], expires_days: float | None) -> dict[str, Any]:
        expires_s = None if expires_days is None else expires_days * 86400
        wanted: list[Scope] = [scope for scope in get_args(Scope) if scope in scopes]
        key, text = self._done(self._ring.create(name, wanted, expires_s=expires_s))
        return KeyWithText.with_text(key, text).model_dump()

    def rotate(self, key_id: str, grace_hours: float) -> dict[str, Any]:
        key, text = self._done(self._ring.rotate(key_id, grace_s=grace_hours * 3600))
        return KeyWithText.with_text(key, text).model_dump()

    def revoke(self, key_id: str) -> dict[str, Any]:
        return KeyView.of(self._done(self._ring.revoke(key_id))).model_dump()

    def _done(self, operation: Coroutine[Any, Any, _T]) -> _T:
        try:
            return self._runner.run(operation)
        except ServerError as error:
            raise CommandError(str(error)) from None
