"""Bodies too large for memory, on their way to the disk: files without a name, bounded all together."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

from server.errors import UploadsFullError
from server.store.errors import StoreUnavailableError

__all__ = ["MAX_SPOOLED_BYTES", "Spool"]

_T = TypeVar("_T")

MAX_SPOOLED_BYTES: Final = 512 * 2**20
"""Of all bodies in hand together: sixteen of the largest."""
_CHUNK: Final = 2**18
"""What a body has in memory at most."""
_RETRY_S: Final = 5.0


class Spool:
    """Takes bodies to a folder's disk. Belongs to the event loop's thread."""

    def __init__(self, folder: Path, *, max_bytes: int = MAX_SPOOLED_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self.num_bytes = 0
        """Of all bodies that are there."""

    @contextlib.asynccontextmanager
    async def taken(self, chunks: AsyncIterator[bytes]) -> AsyncGenerator[BinaryIO, None]:
        """A file with a whole body. It has no name, so that nothing is left of it whatever happens.

        Raises:
            UploadsFullError: there are as many bytes as may be.
            StoreUnavailableError: the disk takes no more.
        """
        taken = 0
        file = await self._on_disk(self._open)
        try:
            pending = bytearray()
            async for chunk in chunks:
                if self.num_bytes + len(chunk) > self._max_bytes:
                    raise UploadsFullError("too many uploads at the same time", retry_after_s=_RETRY_S)
                self.num_bytes += len(chunk)
                taken += len(chunk)
                pending += chunk
                if len(pending) >= _CHUNK:
                    await self._on_disk(file.write, bytes(pending))
                    pending.clear()
            await self._on_disk(_finish, file, bytes(pending))
            yield file
        finally:
            self.num_bytes -= taken
            file.close()

    def close(self) -> None:
        """Take no more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _open(self) -> BinaryIO:
        return tempfile.TemporaryFile(dir=self._folder)

    async def _on_disk(self, act: Callable[..., _T], *arguments: object) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, act, *arguments)
        except OSError as error:
            raise StoreUnavailableError(f"the upload cannot be written: {error.strerror}") from error


def _finish(file: BinaryIO, rest: bytes) -> None:
    file.write(rest)
    file.flush()
