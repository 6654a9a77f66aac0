"""Watching dreams: one database query for all watched ones, one event stream of the GPU server for each running one.

However many people watch, a process asks the database one question twenty times a second and holds one connection to
it. When the GPU server says that a dream has ended, the watcher hurries the dream, so that nobody waits for the next
look of the background.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import AsyncGenerator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Final, TypeVar

from django.db import Error, connection

from newdreamflow.dreams import gpu_server, services
from newdreamflow.dreams.gpu_server import Progress
from newdreamflow.dreams.models import Dream

__all__ = ["Sight", "Watcher", "watcher"]

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

_PAUSE_S: Final = 0.05
_PAUSE_IN_TROUBLE_S: Final = 2.0
_LINGER_S: Final = 5.0
"""How long a dream is watched after nobody does: a page that reconnects, or that polls, finds it as it left it."""
_FIRST_RETRY_S: Final = 0.5
_LONGEST_RETRY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Sight:
    """A dream at one moment."""

    dream: Dream
    progress: Progress | None = None
    """At the GPU server; None while that is not known."""
    preview: bytes | None = None
    """The newest small JPEG of what it looks like so far."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more will be seen."""
        return self.dream.is_finished or self.dream.deleted_at is not None


class _Watched:
    """One dream that is watched. Belongs to its `Watcher`."""

    def __init__(self, dream: Dream) -> None:
        self.sight = Sight(dream)
        self.version = 0
        self.num_watchers = 0
        self.lingers_until = 0.0
        """By the event loop's clock."""
        self.follower: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    @property
    def dream(self) -> Dream:
        """As it was when the database was last asked."""
        return self.sight.dream

    def show(self, sight: Sight) -> None:
        """Notify watchers."""
        self.sight = sight
        self.version += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def change(self, since: int, timeout_s: float) -> None:
        """Return as soon as the version is not `since` any more, or after so long."""
        if self.version != since:
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), timeout_s)


class Watcher:
    """The eyes of one event loop, which owns it. Only the questions to the database run in a thread of their own."""

    def __init__(self) -> None:
        self._watched: dict[int, _Watched] = {}
        self._looking: asyncio.Task[None] | None = None
        self._database = ThreadPoolExecutor(1, thread_name_prefix="watching")

    async def sights(self, dream: Dream, *, silence_s: float) -> AsyncGenerator[Sight | None, None]:
        """How it is: at once, at every change, and for the last time when it is over. None: no news for so long."""
        watched = self._watch(dream)
        watched.num_watchers += 1
        seen = -1
        try:
            while True:
                await watched.change(seen, silence_s)
                if watched.version == seen:
                    yield None
                    continue
                seen, sight = watched.version, watched.sight
                yield sight
                if sight.is_over:
                    return
        finally:
            watched.num_watchers -= 1
            self._linger(watched)

    def glance(self, dream: Dream) -> Sight:
        """How it is. It stays watched for a while, so that a polling client sees it change."""
        watched = self._watch(dream)
        self._linger(watched)
        return watched.sight

    def _watch(self, dream: Dream) -> _Watched:
        watched = self._watched.get(dream.pk)
        if watched is None:
            watched = _Watched(dream)
            if watched.sight.is_over:
                return watched  # there is nothing to look for
            self._watched[dream.pk] = watched
            self._take(watched, dream)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        return watched

    def _linger(self, watched: _Watched) -> None:
        watched.lingers_until = asyncio.get_running_loop().time() + _LINGER_S

    def _forget_unwatched(self) -> None:
        now = asyncio.get_running_loop().time()
        for pk, watched in list(self._watched.items()):
            if not watched.num_watchers and (watched.sight.is_over or now > watched.lingers_until):
                del self._watched[pk]
                self._follow_no_more(watched)

    async def _look(self) -> None:
        """Ask the database how they are, all of them at once, as long as any is watched."""
        try:
            while self._watched:
                dreams = await self._ask(lambda: list(Dream.objects.filter(pk__in=list(self._watched))))
                for dream in dreams or ():
                    if dream.pk in self._watched:
                        self._take(self._watched[dream.pk], dream)
                self._forget_unwatched()
                await asyncio.sleep(_PAUSE_IN_TROUBLE_S if dreams is None else _PAUSE_S)
        finally:
            self._database.submit(connection.close)  # the thread's own

    async def _ask(self, question: Callable[[], _T]) -> _T | None:
        """Ask the database; None if it does not answer."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._database, question)
        except Error as error:
            logger.warning("the database cannot be queried: %s", error)
            self._database.submit(connection.close)
            return None

    def _take(self, watched: _Watched, dream: Dream) -> None:
        """Take note of what the database says about it."""
        before, sight = watched.dream, watched.sight
        if dream.remote_job_id != before.remote_job_id:
            self._follow_no_more(watched)
            sight = Sight(dream)
        if _shown(dream) != _shown(before):
            watched.show(Sight(dream, sight.progress, sight.preview))
        if watched.sight.is_over:
            self._follow_no_more(watched)
        elif dream.remote_job_id and watched.follower is None:
            watched.follower = asyncio.create_task(self._follow(watched, dream))

    def _follow_no_more(self, watched: _Watched) -> None:
        if watched.follower is not None:
            watched.follower.cancel()
            watched.follower = None

    async def _follow(self, watched: _Watched, dream: Dream) -> None:
        """Listen to the GPU server until the dream has ended there; then have it fetched."""
        pause_s = _FIRST_RETRY_S
        while not await self._heard_to_the_end(watched, dream):
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_RETRY_S)
        pause_s = _FIRST_RETRY_S / 2
        # Again and again: whoever had its lease meanwhile may have written a later time into its row. But not while it
        # is in trouble: then its pauses have their reason.
        while not watched.dream.trouble:
            await self._ask(lambda: services.hurry(dream=dream))
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_RETRY_S)

    async def _heard_to_the_end(self, watched: _Watched, dream: Dream) -> bool:
        async with aclosing(gpu_server.follow(dream=dream)) as news:
            async for progress in news:
                before = watched.sight
                is_same_attempt = before.progress is not None and before.progress.attempt == progress.attempt
                preview = progress.preview or (before.preview if is_same_attempt else None)
                watched.show(Sight(watched.dream, progress, preview))
                if progress.is_over:
                    return True
        return False


def _shown(dream: Dream) -> Iterable[object]:
    """The fields of its row that watchers are notified of."""
    return (dream.status, dream.remote_job_id, dream.trouble, dream.error, dream.cancel_requested_at, dream.deleted_at)


_watchers: Final[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Watcher]] = weakref.WeakKeyDictionary()


def watcher() -> Watcher:
    """The one of the running event loop."""
    return _watchers.setdefault(asyncio.get_running_loop(), Watcher())
