"""Addresses of pictures that work without a key for an hour: signed, and of no use for anything else."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from server.access.authentication import SIGNED_FOLDER
from server.errors import JobNotFoundError

__all__ = ["SignedUrls"]

_VALID_S: Final = 3600
"""As long as OpenAI's."""
_SECRET_BYTES: Final = 32
_FILE: Final = "url_secret"


class SignedUrls:
    """Makes and checks such addresses. Its secret is kept, so that a restart changes nothing."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = folder / _FILE
        self._clock = clock
        self._secret = b""

    def open(self) -> None:
        """Read the secret, or make it. Blocks for a moment. Where it cannot be kept, it lasts until the next start."""
        with contextlib.suppress(OSError):
            self._secret = self._path.read_bytes()
        if len(self._secret) == _SECRET_BYTES:
            return
        self._secret = secrets.token_bytes(_SECRET_BYTES)
        with contextlib.suppress(OSError):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(self._secret)

    def path(self, job_id: str, index: int, extension: str) -> str:
        """The path of a picture's address, from now on for an hour."""
        expires = int(self._clock()) + _VALID_S
        signature = self._signature(job_id, index, expires)
        # Longer than anything that logs repeat of a path (`error_wording.path_without_secrets`).
        return f"{SIGNED_FOLDER}{job_id}/{index}/{expires}/{signature}/{job_id}-{index}.{extension}"

    def check(self, job_id: str, index: int, expires: int, signature: str) -> None:
        """Refuse an address that was not made here, or long ago.

        Raises:
            JobNotFoundError: it is not valid.
        """
        is_ours = hmac.compare_digest(signature.encode(), self._signature(job_id, index, expires).encode())
        if not is_ours or expires < self._clock():
            raise JobNotFoundError("the address of the picture is not valid, or has expired")

    def _signature(self, job_id: str, index: int, expires: int) -> str:
        return hmac.new(self._secret, f"{job_id}/{index}/{expires}".encode(), hashlib.sha256).hexdigest()
