"""API keys of a running server: checked in memory, changed together with the store. No HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import secrets
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import msgspec

from server.access.caller import Caller
from server.errors import KeyNotActiveError, KeyNotFoundError, NotAuthorisedError, StoreTroubleError
from server.store.api_keys import ALL_SCOPES, KEY_PREFIX, ApiKey, Scope, digest_of, id_in, new_key, rotated
from server.store.errors import StoreError
from server.store.job_store import JobStore

__all__ = ["ENVIRONMENT_KEY", "KeyRing"]

logger = logging.getLogger(__name__)

ENVIRONMENT_KEY: Final = "environment"
"""Key id of whoever shows the setting `API_KEY`. No id in the store can be the same: those are hexadecimal."""

_ENVIRONMENT_CALLER: Final = Caller(key_id=ENVIRONMENT_KEY, scopes=ALL_SCOPES)

USE_INTERVAL_S: Final = 60.0
"""How exactly it is known when a key was last used, and how often that is written."""

RETRY_S: Final = 0.5
"""Between two tries to write a revocation that the disk did not take."""

_NOT_ACCEPTED: Final = "the API key is invalid, expired or revoked"
_MALFORMED: Final = "the API key is malformed: incomplete or mistyped"


@dataclass(slots=True)
class _Held:
    key: ApiKey
    caller: Caller
    used_at: float
    """Unix seconds, to the minute; 0 for never."""


class KeyRing:
    """Every key of one server: that of the environment and those of the store. Belongs to the event loop's thread.

    Looking one up costs microseconds and no I/O. What is changed is in the store before it holds here;
    only `revoke` has it the other way round, and goes on trying until the disk takes it.
    """

    def __init__(self, environment_key: str | None = None) -> None:
        """Know the value of the setting `API_KEY`, if there is one; the others come with `open`."""
        # Compared where no key of the store is meant. Without API_KEY it is a digest that no text has.
        self._other_digest = secrets.token_bytes(32) if environment_key is None else digest_of(environment_key.encode())
        self._has_environment_key = environment_key is not None
        self._is_needed = self._has_environment_key
        self._held: dict[str, _Held] = {}
        self._unwritten: dict[str, float] = {}
        self._store: JobStore | None = None
        self._writing: asyncio.Task[None] | None = None
        self._unwritten_revocations: dict[str, ApiKey] = {}
        self._revoking: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()

    # --- life ---------------------------------------------------------------------------------------------------------

    async def open(self, store: JobStore) -> None:
        """Take up the store's keys.

        Raises:
            StoreError: they cannot be read.
        """
        for key in await store.keys():
            self._hold(key)
        self._store = store
        self._writing = asyncio.create_task(self._write_uses_for_ever(), name="key uses")

    async def close(self) -> None:
        """Write what is not written yet, while the store is still open. Does nothing if `open` never ended."""
        tasks = [task for task in (self._writing, self._revoking) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(StoreError):
            await self._write_revocations()
        if self._unwritten_revocations:
            ids = ", ".join(self._unwritten_revocations)
            logger.error("revoked keys were not saved and will be valid after a restart, revoke them again: %s", ids)
        await self._write_uses()

    # --- who asks -----------------------------------------------------------------------------------------------------

    @property
    def is_needed(self) -> bool:
        """Whether callers need a key. Once they do, they do as long as this process lives: taking the last key away
        must not open a running server.
        """
        return self._is_needed

    def caller_of(self, text: bytes) -> Caller:
        """Whose key a text is. Compares exactly one digest, whatever is wrong with the text.

        Raises:
            NotAuthorisedError: it is nobody's, or not taken any more.
        """
        at = time.time()
        digest = digest_of(text)
        key_id = id_in(text)
        held = None if key_id is None else self._held.get(key_id)
        expected = self._other_digest if held is None else held.key.digest_meant(digest, at)
        if not hmac.compare_digest(digest, expected):
            # The form is no secret; which ids there are, and what became of them, is.
            is_malformed = key_id is None and (not self._has_environment_key or text.startswith(KEY_PREFIX.encode()))
            raise NotAuthorisedError(_MALFORMED if is_malformed else _NOT_ACCEPTED)
        if held is None:
            return _ENVIRONMENT_CALLER
        if held.key.state(at) != "active":
            raise NotAuthorisedError(_NOT_ACCEPTED)
        if at - held.used_at >= USE_INTERVAL_S:
            held.used_at = self._unwritten[held.key.id] = at
        return held.caller

    # --- the operator's acts ------------------------------------------------------------------------------------------

    def all(self) -> list[ApiKey]:
        """Every key that was ever made, oldest first."""
        return [msgspec.structs.replace(held.key, last_used_at=held.used_at or None) for held in self._held.values()]

    async def create(self, name: str, scopes: Collection[Scope], *, expires_s: float | None) -> tuple[ApiKey, str]:
        """A new key, and its text.

        Args:
            name: what people call it.
            scopes: what it may do.
            expires_s: seconds from now after which it is not taken any more; None: never.

        Raises:
            StoreTroubleError: it could not be written.
        """
        now = time.time()
        expires_at = None if expires_s is None else now + expires_s
        key, text = new_key(name, scopes, created_at=now, expires_at=expires_at)
        await self._keep(key)
        return key, text

    async def rotate(self, key_id: str, *, grace_s: float) -> tuple[ApiKey, str]:
        """The key with a new text, and that; the old text is taken for `grace_s` seconds more.

        Raises:
            KeyNotFoundError: there is no such key.
            KeyNotActiveError: it has expired or was revoked.
            StoreTroubleError: it could not be written.
        """
        async with self._changing:
            now = time.time()
            key = self._found(key_id)
            state = key.state(now)
            if state != "active":
                raise KeyNotActiveError(f"only an active key can be rotated; this one is {state}: create another")
            key, text = rotated(key, old_until=now + grace_s)
            await self._keep(key)
        return key, text

    async def revoke(self, key_id: str) -> ApiKey:
        """Take a key away for good, with what its rotation left. One that was revoked stays as it is.

        It is refused from now on, whatever the disk does.

        Raises:
            KeyNotFoundError: there is no such key.
            StoreTroubleError: it is not taken here any more, but that is not on the disk yet; it is tried again.
        """
        async with self._changing:
            key = self._found(key_id)
            if key.revoked_at is None:
                key = msgspec.structs.replace(key, revoked_at=time.time())
                self._hold(key)
                self._unwritten_revocations[key_id] = key
            try:
                await self._write_revocations()
            except StoreError as error:
                if key_id not in self._unwritten_revocations:  # another one's is what was not written
                    return key
                raise StoreTroubleError(
                    f"the key {key_id} could not be saved as revoked ({error}): a running server refuses it from now "
                    "on and retries to save that; if none runs, revoke it again",
                    retry_after_s=5,
                ) from error
            finally:
                self._revoke_until_written()
        return key

    def _found(self, key_id: str) -> ApiKey:
        found = next((key for key in self.all() if key.id == key_id), None)
        if found is None:
            raise KeyNotFoundError("there is no such key")
        return found

    async def _keep(self, key: ApiKey) -> None:
        if self._store is None:
            raise StoreTroubleError("the key store is not open yet", retry_after_s=1)
        try:
            await self._store.put_key(key)
        except StoreError as error:
            raise StoreTroubleError(f"nothing was changed: {error}", retry_after_s=5) from error
        self._hold(key)

    def _hold(self, key: ApiKey) -> None:
        caller = Caller(key_id=key.id, scopes=key.scopes)
        self._held[key.id] = _Held(key, caller, key.last_used_at or 0.0)
        self._is_needed = self._is_needed or key.revoked_at is None

    # --- revocations --------------------------------------------------------------------------------------------------

    def _revoke_until_written(self) -> None:
        if self._unwritten_revocations and (self._revoking is None or self._revoking.done()):
            self._revoking = asyncio.create_task(self._write_revocations_for_long(), name="revocations")

    async def _write_revocations_for_long(self) -> None:
        logger.error("revoked keys could not be saved, retrying: %s", ", ".join(self._unwritten_revocations))
        while self._unwritten_revocations:
            await asyncio.sleep(RETRY_S)
            with contextlib.suppress(StoreError):
                await self._write_revocations()
        logger.warning("revoked keys are saved now")

    async def _write_revocations(self) -> None:
        for key_id, key in list(self._unwritten_revocations.items()):
            if self._store is not None:
                await self._store.put_key(key)
            self._unwritten_revocations.pop(key_id, None)

    # --- last uses ----------------------------------------------------------------------------------------------------

    async def _write_uses_for_ever(self) -> None:
        while True:
            await asyncio.sleep(USE_INTERVAL_S)
            await self._write_uses()

    async def _write_uses(self) -> None:
        if self._unwritten and self._store is not None:
            uses, self._unwritten = self._unwritten, {}
            try:
                await self._store.note_key_uses(uses)
            except StoreError as error:
                logger.warning("last use of keys could not be saved: %s", error)
                self._unwritten = uses | self._unwritten
