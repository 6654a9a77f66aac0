"""Storage whose disk fails, hangs or is slow where a test wants it; passed to the server as `open_storage`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator

from server.store.disk import Disk, look_at
from server.store.errors import StoreUnavailableError
from server.store.job_store import JobStore
from server.store.picture_files import ResultFiles
from server.store.storage import RETRY_S, Storage


class FaultyStore(JobStore):
    """A job store that does something else first, by the name of the method."""

    def __init__(self, thread) -> None:
        super().__init__(thread)
        self.before: dict[str, Callable[[], Awaitable[object]]] = {}
        self.after: dict[str, Callable[[object], object]] = {}


class FaultyFiles(ResultFiles):
    """Picture files of which the same is true; on the threads that write and read them."""

    def __init__(self, folder) -> None:
        super().__init__(folder)
        self.before: dict[str, Callable[[], object]] = {}


def _store_method(name):
    method = getattr(JobStore, name)

    async def call(self, *arguments, **named):
        if name in self.before:
            await self.before[name]()
        result = await method(self, *arguments, **named)
        return self.after[name](result) if name in self.after else result

    return call


def _files_method(name):
    method = getattr(ResultFiles, name)

    def call(self, *arguments, **named):
        if name in self.before:
            self.before[name]()
        return method(self, *arguments, **named)

    return call


STORE_METHODS = (
    *("add", "find_repeat", "begin", "put_back", "finish", "fail_queued", "cancel", "revive", "get", "page", "usage"),
    *("expire", "ids_with_files", "check_writable"),
)
FILES_METHODS = ("write", "read", "delete", "check_writable", "job_ids")
for _name in STORE_METHODS:
    setattr(FaultyStore, _name, _store_method(_name))
for _name in FILES_METHODS:
    setattr(FaultyFiles, _name, _files_method(_name))


async def open_faulty(folder, *, look=look_at, retry_s=RETRY_S) -> Storage:
    """As `Storage.open`, with nothing wrong yet."""
    store = await FaultyStore.open(folder)
    files = FaultyFiles(folder / "results")
    files.make_folders()
    return Storage(store, files, disk=Disk(folder, look=look), retry_s=retry_s)


@contextlib.contextmanager
def full_disk(storage: Storage, *names: str) -> Iterator[None]:
    """Let writes fail, those of these names (of store or files) or all."""
    store_names = [name for name in STORE_METHODS if name in names or not names]
    files_names = [name for name in ("write", "check_writable") if name in names or not names]

    async def fail() -> None:
        await asyncio.sleep(0.01)
        raise StoreUnavailableError("the disk is full")

    def fail_at_once() -> None:
        raise StoreUnavailableError("the disk is full")

    storage.store.before |= dict.fromkeys(store_names, fail)
    storage.files.before |= dict.fromkeys(files_names, fail_at_once)
    try:
        yield
    finally:
        for name in store_names:
            del storage.store.before[name]
        for name in files_names:
            del storage.files.before[name]
