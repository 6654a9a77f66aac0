"""A Ray cluster of processes of our own for one test run, and who of them is who."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from tests.processes import REPOSITORY, free_port

TOKEN = "r" * 32
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
ARGUMENTS: dict[str, Any] = {"gpus": 0, "cpus": 0.1, "places": 4, "drain_timeout_s": 20}
_MARK = "SEMANTIC_BIT_RAY_TEST"


@dataclass(kw_only=True)
class Cluster:
    """Ray's processes and how to reach Serve's proxy."""

    url: str
    mark: str
    process: subprocess.Popen[str]
    log: Path

    def deploy(self, **arguments: Any) -> None:
        """Start the application, or replace every replica; returns when the new ones are ready."""
        self.begin(do="deploy", **ARGUMENTS | arguments)
        self.answer()

    def begin(self, **command: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """What the driver says to the command that was begun last."""
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            with contextlib.suppress(ValueError):
                return json.loads(line)
        raise AssertionError(f"the driver has ended:\n{self.log.read_text()[-3000:]}")

    def num_running(self) -> int:
        self.begin(do="status")
        return sum(number for state, number in self.answer().items() if "RUNNING" in state)

    def pids(self, word: str) -> list[int]:
        """Processes of this cluster with a word in their command line: `ServeReplica`, `raylet`, `gcs_server`."""
        return [pid for pid, command in _marked(self.mark) if word in command]

    def kill(self, word: str) -> None:
        pids = self.pids(word)
        assert pids, f"there is no {word} among {_marked(self.mark)}"
        for pid in pids[:1]:
            os.kill(pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill all of it."""
        deadline = time.monotonic() + 30
        while (left := _marked(self.mark)) and time.monotonic() < deadline:
            for pid, _ in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.poll()
            time.sleep(0.1)
        self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()

    def info(self) -> httpx2.Response:
        return httpx2.get(f"{self.url}/engine/v1/info", headers=HEADERS, timeout=5)

    def answers(self) -> bool:
        """Whether an engine does. While there is none, Serve lets the request wait."""
        with contextlib.suppress(httpx2.TransportError):
            return self.info().status_code == 200
        return False

    def metric(self, name: str) -> float:
        """Of the only replica."""
        text = httpx2.get(f"{self.url}/metrics", headers=HEADERS, timeout=5).text
        return float(next(line for line in text.splitlines() if line.startswith(f"{name} ")).rpartition(" ")[2])


@contextlib.contextmanager
def cluster(python: str, *, port: int | None = None, model_id: str = "fake-engine:50") -> Iterator[Cluster]:
    """One that is ready for `deploy`. Whatever is left of it at the end is killed."""
    folder = Path(tempfile.mkdtemp(prefix="sbray", dir="/tmp"))  # Ray's sockets need a short path
    mark, log, port = folder.name, folder / "driver.log", port or free_port()
    environment = {
        **os.environ,
        _MARK: mark,
        "PYTHONPATH": str(REPOSITORY),
        "HOME": str(folder),
        "MODEL_ID": model_id,
        "ENGINE_TOKEN": TOKEN,
        "DATA_DIR": str(folder / "data"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
        "OMP_NUM_THREADS": "1",
    }
    with log.open("w") as err:
        process = subprocess.Popen(
            [python, "-m", "tests.ray.driver", str(port), str(folder / "ray")],
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
        )
    started = Cluster(url=f"http://127.0.0.1:{port}", mark=mark, process=process, log=log)
    try:
        yield started
    finally:
        started.end()
        shutil.rmtree(folder, ignore_errors=True)


def _marked(mark: str) -> list[tuple[int, str]]:
    """Process id and command line of every process that has inherited the mark, and of those that these started.

    Ray's workers change their title, which writes over what Linux shows of their environment.
    """
    parents, commands, found = {}, {}, set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                pid = int(entry.name)
                parents[pid] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                commands[pid] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if f"{_MARK}={mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.add(pid)
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return [(pid, commands[pid]) for pid in sorted(found) if commands[pid]]
