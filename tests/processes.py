"""Real processes for tests, ended by their ids: `python -m server serve` on a free port, and a Caddy before it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
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


@contextlib.contextmanager
def caddy_process(
    folder: Path, caddyfile: str, *, options: str = "", environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run Caddy with this Caddyfile. It leaves this machine as it was: no trust store, no administration port."""
    config, log = folder / "Caddyfile", folder / "caddy.log"
    config.write_text(f"{{\n admin off\n skip_install_trust\n {options}\n}}\n{caddyfile}\n")
    homes = {"XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["caddy", "run", "--adapter", "caddyfile", "--config", config],
            env={**os.environ, **homes, **(environment or {})},
            stdout=out,
            stderr=out,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens just now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
