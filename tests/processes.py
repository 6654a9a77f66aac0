"""Real server processes for tests: `python -m server serve` on a free port, ended by its id."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2

REPOSITORY = Path(__file__).parents[1]


@dataclass(kw_only=True)
class ServerProcess:
    """A server in a process of its own, with a real engine."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def wait_until_ready(self, timeout_s: float = 120) -> None:
        deadline = time.monotonic() + timeout_s
        while httpx2.get(f"{self.url}/readyz").status_code != 200:
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)


@contextlib.contextmanager
def server_process(folder: Path, **settings: str) -> Iterator[ServerProcess]:
    """Run a server whose working directory is `folder`, and end it with SIGTERM.

    One thread an engine: on the busy machines that test this, threads that wait for each other are slow beyond reason.
    """
    log = folder / "server.log"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [settings.pop("PYTHONPATH", ""), str(REPOSITORY)])),
        "OMP_NUM_THREADS": "1",
        "PORT": "0",
        "DATA_DIR": str(folder / "var"),
        **settings,
    }
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "server", "serve"], cwd=folder, env=environment, stdout=out, stderr=out
        )
    try:
        yield ServerProcess(url=_address(process, log), process=process, log=log)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + 30
    while True:
        found = re.search(r"Listening on (http://\S+)", log.read_text())
        if found:
            return found[1]
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
