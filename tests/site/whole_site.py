"""The whole site as `./run.sh site` starts it: GPU server, site and worker, on a folder of its own and free ports."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.processes import REPOSITORY

__all__ = ["START", "WholeSite", "children_of", "environment_of", "is_alive", "whole_site"]

START: Sequence[str | Path] = (sys.executable, REPOSITORY / "scripts/run_site.py")


@dataclass(frozen=True, kw_only=True)
class WholeSite:
    """A running one."""

    url: str
    gpu_server_url: str
    process: subprocess.Popen[bytes]
    log: Path
    environment: dict[str, str]

    def manage(self, *arguments: str) -> str:
        """Run one of Django's commands on it; what it printed."""
        command = [sys.executable, "newdreamflow/manage.py", *arguments]
        finished = subprocess.run(
            command, cwd=REPOSITORY, env=self.environment, capture_output=True, text=True, timeout=60, check=True
        )
        return finished.stdout


@contextlib.contextmanager
def whole_site(folder: Path, *, command: Sequence[str | Path] = START, **settings: str) -> Iterator[WholeSite]:
    """Start it and wait until it draws; end it as Ctrl+C does.

    Args:
        folder: where it works.
        command: how it is started.
        settings: its environment.
    """
    ports = _free_ports(2)
    environment = environment_of(folder, *ports) | settings
    log = folder / "site.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=out, stderr=out)
        running = WholeSite(
            url=f"http://127.0.0.1:{ports[1]}",
            gpu_server_url=f"http://127.0.0.1:{ports[0]}",
            process=process,
            log=log,
            environment=environment,
        )
        try:
            deadline = time.monotonic() + 120
            while b"Ctrl+C ends all of it" not in log.read_bytes():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            yield running
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(90)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def environment_of(folder: Path, port: int, site_port: int) -> dict[str, str]:
    """Of a site on a folder of its own; nothing of ours that would lead it elsewhere."""
    unset = ("SITE_", "GPU_SERVER_", "EMAIL_", "DJANGO_", "DATABASE_URL")
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(unset)},
        "DATA_DIR": str(folder / "data"),
        "PORT": str(port),
        "SITE_PORT": str(site_port),
        "PYTHONPATH": str(REPOSITORY / "client"),
    }


def children_of(process_id: int) -> list[int]:
    """The process ids of what it has started."""
    told = Path(f"/proc/{process_id}/task/{process_id}/children").read_text()
    return [int(child) for child in told.split()]


def is_alive(process_id: int) -> bool:
    """Whether there is still such a process."""
    try:
        return "Z" not in Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as probes:
        found = []
        for _ in range(number):
            probe = probes.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            found.append(probe.getsockname()[1])
        return found
