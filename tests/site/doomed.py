"""A process whose children advance dreams and die at a chosen edge, by `kill -9`.

Run as `python -m tests.site.doomed DATABASE MEDIA_ROOT`. Reads one `Walk` a line and forks a child for each, which
advances the dream once at each of the GPU servers named, until it has ended. Answers with a `Fate`.

An edge is the moment right after something was done to the world outside: a statement that wrote, a request to the GPU
server, a file written or deleted; and the moment before the first of these. A transaction is left at two: with
everything written and nothing committed, and right after its commit. Edges are counted from 1. Between two of them
nothing happens that anybody could tell afterwards.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from decimal import Decimal

import django
from django.conf import settings
from django.core.files.storage import FileSystemStorage
from django.db import connection
from PIL import Image
from semantic_bit_client import Client, Job

from tests.processes import REPOSITORY

__all__ = ["Fate", "Walk", "doomed"]

LONGEST_DRAWING_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Walk:
    """What a child is to do."""

    dream_id: int
    edge: int
    """That it dies at."""
    urls: list[str]
    """Of the GPU server, as it is at each advance."""
    price: str
    """Credits for one work unit."""


@dataclass(frozen=True, kw_only=True)
class Fate:
    """How a child ended."""

    signal: int
    """That killed it; 0 if none did."""
    edges: list[str]
    """Those that it passed, by what was done; empty if it was killed, or stumbled."""

    @property
    def was_killed(self) -> bool:
        return self.signal == signal.SIGKILL


@contextlib.contextmanager
def doomed(database: str, media_root: str) -> Iterator[Callable[[Walk], Fate]]:
    """The process; its children walk one after the other."""
    command = [sys.executable, "-m", "tests.site.doomed", database, media_root]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=REPOSITORY, text=True, **pipes) as process:

        def walked(walk: Walk) -> Fate:
            process.stdin.write(json.dumps(asdict(walk)) + "\n")
            process.stdin.flush()
            return Fate(**json.loads(process.stdout.readline()))

        yield walked


def _main(database: str, media_root: str) -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.site.settings"
    settings.DATABASES["default"]["NAME"] = database
    settings.MEDIA_ROOT = media_root
    django.setup()
    _warm_up()
    for line in sys.stdin:
        fate = _fate_of(Walk(**json.loads(line)))
        print(json.dumps(asdict(fate)), flush=True)  # noqa: T201 -- to the test


def _warm_up() -> None:
    """Do here what is otherwise done at first use, by every child anew."""
    from newdreamflow.dreams import gpu_server  # noqa: PLC0415 -- models can be imported only now
    from newdreamflow.dreams.models import Dream  # noqa: PLC0415

    Image.init()
    assert gpu_server.health() is None  # there is none so far, but all is imported that asking takes
    Dream.objects.exists()
    connection.close()  # a child has its own
    gc.collect()
    gc.freeze()  # or a child would copy all of this to look for garbage in it


def _fate_of(walk: Walk) -> Fate:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, json.dumps(_walk_and_die(walk)).encode())
        except BaseException:  # noqa: BLE001 -- it must not go on as its parent does
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading) as pipe:  # noqa: PTH123 -- it has no path
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    return Fate(signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, edges=json.loads(told or "[]"))


def _walk_and_die(walk: Walk) -> list[str]:
    from newdreamflow.dreams import advancing, gpu_server  # noqa: PLC0415 -- see above
    from newdreamflow.dreams.models import Dream  # noqa: PLC0415

    settings.DREAMS_PRICE_PER_WORK_UNIT = Decimal(walk.price)
    find = Client.job
    edges = _Edges(walk.edge)
    edges.lay()
    edges.arrive("begin")
    rows = Dream.objects.filter(pk=walk.dream_id)
    for settings.GPU_SERVER_URL in walk.urls:
        with connection.execute_wrapper(edges.after_statement):
            advancing.advance(dream_id=walk.dream_id)
        dream = rows.get()
        if dream.is_finished:
            break
        deadline = time.monotonic() + LONGEST_DRAWING_S
        is_drawn = not dream.remote_job_id or bool(dream.trouble)
        while not is_drawn:
            assert time.monotonic() < deadline, "it is not drawn"
            time.sleep(0.002)
            is_drawn = find(gpu_server.client(), dream.remote_job_id).state.is_over
        rows.update(next_try_at=dream.created_at)
    return edges.passed


class _Edges:
    """Where this process has been, and where it dies."""

    def __init__(self, last: int) -> None:
        self._last = last
        self.passed: list[str] = []

    def arrive(self, name: str) -> None:
        self.passed.append(name)
        if len(self.passed) == self._last:
            os.kill(os.getpid(), signal.SIGKILL)

    def lay(self) -> None:
        """Put one after each thing that can be done, beside statements."""
        for owner, names in (
            (Client, ("submit", "job")),
            (Job, ("cancel", "image")),
            (FileSystemStorage, ("_save", "delete")),
            (connection, ("commit",)),
        ):
            for name in names:
                setattr(owner, name, self._before_edge(getattr(owner, name)))

    def after_statement(self, execute, sql, params, many, context):
        answer = execute(sql, params, many, context)
        if sql.startswith(("INSERT", "UPDATE", "DELETE")) and not connection.in_atomic_block:
            self.arrive("write")
        return answer

    def _before_edge(self, function):
        @functools.wraps(function)
        def called(*arguments, **named):
            if function.__name__ == "commit":
                self.arrive("uncommitted")
            try:
                return function(*arguments, **named)
            finally:
                self.arrive(function.__name__)

        return called


if __name__ == "__main__":
    _main(*sys.argv[1:])
