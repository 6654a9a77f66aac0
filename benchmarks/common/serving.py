"""A real server on a free loopback port: `python -m server serve`, started, asked, measured, and stopped by its pid."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from server.config import REPOSITORY, Settings

__all__ = ["RunningServer", "client", "server_timing"]

_LISTENING = re.compile(r"Listening on (http://\S+)")
_POLL_S = 0.02
_STOP_GRACE_S = 20.0
_LAST_WORDS = 2000
"""Characters of the log that are shown when the start fails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningServer:
    """A gateway with its engine process."""

    url: str
    process_id: int
    """Of the gateway."""
    began: float
    """When its process was started, on the clock of `time.perf_counter`."""

    @classmethod
    @contextlib.contextmanager
    def started(cls, command: str = "serve", **settings: str) -> Iterator[RunningServer]:
        """Start a server, and hand it over as soon as it listens; the model is then still being loaded.

        Args:
            command: `serve`, or `engine`.
            settings: those of `docs/configuration.md`; no other of them reaches it from this environment or a `.env`.

        Raises:
            RuntimeError: it did not start; the message has the end of its log.
        """
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+", encoding="utf-8") as log:
            began = time.perf_counter()
            process = subprocess.Popen(  # noqa: S603 -- our own interpreter, and one of our own commands
                [sys.executable, "-m", "server", command],
                cwd=folder,
                env=_environment({"DATA_DIR": f"{folder}/var", **settings}),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
            try:
                yield cls(url=_url(process, log), process_id=process.pid, began=began)
            finally:
                _stop(process)

    def wait_until_ready(self, http: httpx2.Client) -> dict[str, Any]:
        """Return what `GET /health` says as soon as the engine is ready. (Its first picture takes longer than others.)

        Raises:
            RuntimeError: the model cannot be served.
        """
        while True:
            health: dict[str, Any] = http.get(f"{self.url}/health").json()
            if health["model_loaded"]:
                return health
            if health["status"] == "failed":
                raise RuntimeError(health["reason"])
            time.sleep(_POLL_S)

    def wait_until_warm(self, http: httpx2.Client) -> dict[str, Any]:
        """Return what `GET /health` says when a first small picture has been drawn.

        Raises:
            RuntimeError: the model cannot be served.
        """
        health = self.wait_until_ready(http)
        self.draw(http, prompt="warm-up", num_inference_steps=2)
        return health

    def draw(self, http: httpx2.Client, **fields: object) -> httpx2.Response:
        """Ask for a picture.

        Args:
            http: who asks.
            fields: of the request's body.

        Raises:
            httpx2.HTTPStatusError: there is none.
        """
        return http.post(f"{self.url}/generate", json=fields).raise_for_status()

    @property
    def engine_process_id(self) -> int:
        """Of the gateway's only child. Linux only."""
        [child] = [
            int(status.parent.name)
            for status in Path("/proc").glob("[0-9]*/status")
            if _status_field(status, "PPid") == str(self.process_id)
        ]
        return child

    def peak_memory_bytes(self) -> tuple[int, int]:
        """The most memory that gateway and engine have ever had resident. Linux only."""
        return _memory_bytes(self.process_id, "VmHWM"), _memory_bytes(self.engine_process_id, "VmHWM")

    def engine_resident_bytes(self) -> int:
        """Memory that the engine has resident now. Linux only."""
        return _memory_bytes(self.engine_process_id, "VmRSS")


def client() -> httpx2.Client:
    """One connection that is kept alive and never leaves this machine, whatever proxy the environment names."""
    return httpx2.Client(timeout=None, trust_env=False)


def server_timing(response: httpx2.Response) -> dict[str, float]:
    """Phase -> milliseconds, as the header `Server-Timing` has them."""
    phases = (phase.partition(";dur=") for phase in response.headers["server-timing"].split(", "))
    return {name: float(milliseconds) for name, _, milliseconds in phases}


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    """What the server sees: our settings and no other."""
    names = {name.upper() for name in Settings.model_fields}
    inherited = {name: value for name, value in os.environ.items() if name.upper() not in names}
    return {**inherited, "PYTHONPATH": str(REPOSITORY), "PORT": "0", **settings}


def _url(process: subprocess.Popen[str], log: Any) -> str:  # noqa: ANN401 - tempfile does not name its type
    assert process.stdout is not None  # noqa: S101 - asked for in `started`
    found = _LISTENING.search(process.stdout.readline())
    if found is None:
        process.wait()
        log.seek(0)
        raise RuntimeError(f"the server did not start:\n{log.read()[-_LAST_WORDS:]}")
    return found[1]


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _memory_bytes(process_id: int, field: str) -> int:
    value = _status_field(Path(f"/proc/{process_id}/status"), field)
    if value is None:
        raise RuntimeError(f"the process {process_id} has ended")
    return int(value.removesuffix(" kB")) * 1024


def _status_field(status: Path, name: str) -> str | None:
    """A field of a process; None if the process has ended."""
    try:
        lines = status.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in lines)
    return fields[name].strip() if name in fields else None
