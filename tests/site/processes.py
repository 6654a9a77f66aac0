"""Workers of the site as real processes, on the test's database, media folder and GPU server."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings
from django.db import connection
from django.utils import timezone

from newdreamflow.dreams.models import Dream
from tests.processes import REPOSITORY

__all__ = ["Worker", "until_ended", "worker"]


class Worker:
    """One runner's worker."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        self._command, self._environment, self._log = command, environment, log
        self._out = log.open("ab")
        self._start()

    def _start(self) -> None:
        self.process = subprocess.Popen(
            self._command, cwd=REPOSITORY, env=self._environment, stdout=self._out, stderr=self._out,
            start_new_session=True,
        )  # fmt: skip

    def kill(self) -> None:
        """As the kernel does when memory is short: its children too."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def restart(self) -> None:
        self._start()

    def stop(self) -> int:
        """As a service manager does; the exit status."""
        self.process.terminate()
        return self.process.wait(20)

    def close(self) -> None:
        self.kill()
        self._out.close()

    @property
    def log(self) -> str:
        return self._log.read_text()


@contextlib.contextmanager
def worker(folder: Path, runner: str, broker: str = "", *, lease_s: float = 3.0) -> Iterator[Worker]:
    """A worker of a runner. Its leases are short, so that a test need not wait a minute after a kill."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SITE_")},
        "DJANGO_SETTINGS_MODULE": "tests.site.worker_settings",
        "TEST_DATABASE_NAME": str(connection.settings_dict["NAME"]),
        "TEST_MEDIA_ROOT": str(settings.MEDIA_ROOT),
        "TEST_GPU_SERVER_URL": settings.GPU_SERVER_URL,
        "TEST_RUNNER": runner,
        "TEST_BROKER": broker,
        "TEST_LEASE_S": str(lease_s),
        "PYTHONPATH": os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "client"))),
    }
    commands = {
        "database": ["newdreamflow/manage.py", "dreamworker", "--threads", "4"],
        "celery": [
            *("-m", "celery", "-A", "newdreamflow.config.celery", "worker", "--beat", "-l", "warning", "-c", "2"),
            *("-s", str(folder / "beat")),
        ],
    }
    running = Worker([sys.executable, *commands[runner]], environment, folder / f"{runner}.log")
    try:
        yield running
    finally:
        running.close()


def until_ended(dreams: list[Dream], timeout_s: float) -> list[Dream]:
    """The dreams when all of them have ended."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = list(Dream.objects.filter(pk__in=[dream.pk for dream in dreams]).order_by("pk"))
        if all(dream.is_finished for dream in found):
            return found
        waiting = [
            f"{dream.status} ({dream.trouble}; next {dream.next_try_at - timezone.now()})"
            for dream in found
            if not dream.is_finished
        ]
        assert time.monotonic() < deadline, waiting
        time.sleep(0.05)
