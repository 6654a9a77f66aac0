"""The database runner: polls for due dreams and advances them in a few threads. Needs no other service."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from django.db import Error, connection
from django.utils import timezone

from newdreamflow.dreams import advancing, erasing, photos
from newdreamflow.dreams.models import Dream

__all__ = ["DreamWorker"]

logger = logging.getLogger(__name__)

_PAUSE_S: Final = 0.1
_PAUSE_IN_TROUBLE_S: Final = 1.0
_TIDYING_S: Final = 3600.0
"""Between two looks for photos that have expired."""


class DreamWorker:
    """One process's worker. Several processes may run one each: a dream's lease is one worker's at a time."""

    def __init__(self, num_threads: int) -> None:
        self._num_threads = num_threads
        self._stopping = threading.Event()
        self._busy: dict[int, Future[None]] = {}

    def stop(self) -> None:
        """Finish what is being advanced, and return from `run`. May be called from a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        """Advance dreams until `stop`."""
        with ThreadPoolExecutor(self._num_threads, thread_name_prefix="dreams") as threads:
            threads.submit(_erase_left_over)
            tidied_at = -_TIDYING_S
            while not self._stopping.is_set():
                if time.monotonic() - tidied_at >= _TIDYING_S:
                    tidied_at = time.monotonic()
                    threads.submit(_delete_expired_photos)
                self._stopping.wait(_PAUSE_S if self._look(threads) else _PAUSE_IN_TROUBLE_S)

    def _look(self, threads: ThreadPoolExecutor) -> bool:
        self._busy = {dream_id: future for dream_id, future in self._busy.items() if not future.done()}
        room = self._num_threads - len(self._busy)
        if room <= 0:
            return True
        try:
            due = Dream.objects.due_pks(timezone.now(), room + len(self._busy))
        except Error as error:
            logger.warning("the database cannot be read: %s", error)
            connection.close()
            return False
        for dream_id in [dream_id for dream_id in due if dream_id not in self._busy][:room]:
            self._busy[dream_id] = threads.submit(_advance, dream_id)
        return True


def _erase_left_over() -> None:
    try:
        erasing.erase_left_over()
    except Error as error:
        logger.warning("files of deleted dreams could not be erased: %s", error)
        connection.close()


def _delete_expired_photos() -> None:
    try:
        photos.delete_expired()
    except OSError as error:
        logger.warning("expired photos could not be deleted: %s", error)


def _advance(dream_id: int) -> None:
    try:
        advancing.advance(dream_id=dream_id)
    except Error as error:
        # The row is as it was; when its lease is over, somebody tries again.
        logger.warning("dream %d: the database failed: %s", dream_id, error)
        connection.close()
    except Exception:
        logger.exception("dream %d could not be advanced", dream_id)
