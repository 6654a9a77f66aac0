"""A server process for chaos tests: with the fake engine, on a folder that outlives it, killed at the end."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from server.serving import serve
from tests.processes import REPOSITORY, _address

SERVE = (sys.executable, "-m", "server", "serve")
TERMINAL = frozenset({"done", "failed", "cancelled", "dead"})

needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the engine's process in /proc")


_SIBLINGS = multiprocessing.get_context("forkserver")
_SIBLINGS.set_forkserver_preload(["tests.chaos.gateway", "server.draining_server"])


class Forked:
    """`python -m server serve` without the second that its imports take: forked from a process that has done them.

    Looks like `subprocess.Popen`. For tests that start servers by the dozen.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], log: Path) -> None:
        self._process = _SIBLINGS.Process(target=_serve, args=(folder, dict(environment), log))
        self._process.start()
        self.pid = self._process.pid
        self.kill = self._process.kill

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout_s: float) -> int:
        self._process.join(timeout_s)
        assert self._process.exitcode is not None, f"it did not end within {timeout_s} s"
        return self._process.exitcode


@dataclass(kw_only=True)
class Gateway:
    """A running server, and how to ask it."""

    url: str
    process: subprocess.Popen[bytes] | Forked
    log: Path
    client: httpx2.Client

    @property
    def engine_ids(self) -> list[int]:
        """The process ids of its engines: one, or none while it is replaced."""
        told = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(child) for child in told.split()]

    def get(self, path: str) -> httpx2.Response:
        return self.client.get(self.url + path)

    def submit(self, **wish: object) -> dict[str, Any]:
        answer = self.try_submit(**wish)
        assert answer.status_code == 202, answer.text
        return answer.json()

    def try_submit(self, **wish: object) -> httpx2.Response:
        ordinary = {"prompt": "a cat", "num_inference_steps": 4, "height": 64, "width": 64}
        return self.client.post(f"{self.url}/v1/jobs", json=ordinary | wish)

    def job(self, job_id: str) -> dict[str, Any]:
        answer = self.get(f"/v1/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def ended(self, job_id: str, timeout_s: float = 10) -> dict[str, Any]:
        """The job when it has ended."""
        return until(lambda: (job := self.job(job_id))["status"] in TERMINAL and job, timeout_s, f"job {job_id}")

    def is_ready(self) -> bool:
        """200 or 503; any other answer is a fault."""
        answer = self.get("/readyz")
        assert answer.status_code in {200, 503}, answer.text
        return answer.status_code == 200

    def wait_until_ready(self, timeout_s: float = 20) -> None:
        until(self.is_ready, timeout_s, "ready")

    def wait_until_idle(self, timeout_s: float) -> None:
        def is_idle() -> bool:
            queue = self.get("/v1/queue").json()
            return queue["waiting"] == queue["running"] == 0

        until(is_idle, timeout_s, "idle")

    def kill(self) -> None:
        """End it as the kernel does when memory is short."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)


@contextlib.contextmanager
def gateway(
    folder: Path,
    *,
    command: Sequence[str | Path] | None = SERVE,
    waits: bool = True,
    pipes_log: bool = False,
    **settings: str,
) -> Iterator[Gateway]:
    """A server on `folder`/data. Whatever is left of it at the end is killed.

    Args:
        folder: where it works.
        command: how it is started; None forks it.
        waits: whether the model is warm when it is handed over.
        pipes_log: let `cat` write its log, so that it need not write any file itself.
        settings: its environment.
    """
    log = folder / f"server-{time.monotonic_ns()}.log"
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "DATA_DIR": str(folder / "data"),
        "PORT": "0",
        "OMP_NUM_THREADS": "1",
        "MODEL_ID": "fake-engine",
        **settings,
    }
    with contextlib.ExitStack() as cleaning:
        out = cleaning.enter_context(log.open("wb"))
        if pipes_log:
            writer = cleaning.enter_context(subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=out))
            out = writer.stdin
        if command is None:
            process = Forked(folder, environment, log)
        else:
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=out)
        cleaning.callback(_end, process)
        client = cleaning.enter_context(httpx2.Client(timeout=10))
        running = Gateway(url=_address(process, log), process=process, log=log, client=client)
        if waits:
            running.wait_until_ready()
        yield running


def until(condition: Callable[[], Any], timeout_s: float, what: str) -> Any:
    """What `condition` says as soon as that is true."""
    deadline = time.monotonic() + timeout_s
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not {what} within {timeout_s} s"
        time.sleep(0.02)
    return answer


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * int(percent) // 100) - 1)]


def _serve(folder: Path, environment: dict[str, str], log: Path) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.chdir(folder)
    os.environ.update(environment)
    serve()


def _end(process: subprocess.Popen[bytes] | Forked) -> None:
    process.kill()
    process.wait(10)
