"""How `serve` ends: the first signal finishes what is being drawn, the second ends at once, and nothing is lost."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.processes import REPOSITORY

SERVE = [sys.executable, "-m", "server", "serve"]
STEP_S = 0.1
SOME_STEPS = 15
"""Long enough for a test to look at a job while it is drawn, on a busy machine too."""


def environment(folder: Path, **settings: str) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "MODEL_ID": f"fake-engine:{STEP_S * 1000:.0f}",
        "DATA_DIR": str(folder / "data"),
        "PORT": "0",
        "MAX_CONCURRENT_REQUESTS": "6",
        **settings,
    }


class Server:
    """`python -m server serve` with the fake engine, ready."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log
        while not (found := re.search(r"Listening on (http://\S+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            time.sleep(0.02)
        self.http = httpx2.Client(base_url=found[1])
        self.wait(lambda: self.http.get("/readyz").status_code == 200)

    def wait(self, is_so, timeout_s: float = 20) -> float:
        """Seconds until it was so."""
        began = time.monotonic()
        while not is_so():
            assert time.monotonic() - began < timeout_s, self.log.read_text()
            time.sleep(0.02)
        return time.monotonic() - began

    def submit(self, number: int, steps: int = SOME_STEPS) -> list[str]:
        wish = {"prompt": "a cat", "num_inference_steps": steps, "height": 64, "width": 64}
        return [self.http.post("/v1/jobs", json=wish).raise_for_status().json()["id"] for _ in range(number)]

    def statuses(self, ids: list[str]) -> set[str]:
        return {self.http.get(f"/v1/jobs/{job_id}").json()["status"] for job_id in ids}

    def signal_and_wait(self, number: int, timeout_s: float) -> tuple[int, float]:
        """Exit code and seconds."""
        began = time.monotonic()
        self.process.send_signal(number)
        return self.process.wait(timeout_s), time.monotonic() - began


@contextlib.contextmanager
def serving(folder: Path, **settings: str) -> Iterator[Server]:
    """A server, killed at the end if it is still there."""
    log = folder / f"server-{time.monotonic_ns()}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(SERVE, cwd=folder, env=environment(folder, **settings), stdout=out, stderr=out)
    try:
        server = Server(process, log)
        with contextlib.closing(server.http):
            yield server
    finally:
        process.kill()
        process.wait(10)


def is_alive(process_id: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{process_id}/status").read_text()
    except FileNotFoundError:
        return False


def test_what_is_being_drawn_is_finished_and_what_waits_is_drawn_at_the_next_start(tmp_path):
    """
    By Ctrl+C here; by SIGTERM, and under `run.sh`, in tests/chaos/test_drain.py.
    """
    with serving(tmp_path) as server:
        running = server.submit(6)
        server.wait(lambda: server.statuses(running) == {"running"})
        waiting = server.submit(2, steps=2)
        server.process.send_signal(signal.SIGINT)
        assert server.wait(lambda: server.http.get("/readyz").status_code == 503) < 0.5
        # It still answers, and takes nothing more.
        assert server.http.get("/livez").status_code == 200
        assert server.http.get("/health").json()["status"] == "draining"
        refused = server.http.post("/v1/jobs", json={"prompt": "a cat"})
        assert refused.status_code == 503
        assert refused.json()["code"] == "draining"
        assert server.process.wait(20) == 0
        assert not list((tmp_path / "data" / "server").glob("*.sock"))
        assert "Traceback" not in server.log.read_text()
    with serving(tmp_path) as server:
        assert server.statuses(running) == {"done"}
        server.wait(lambda: server.statuses(waiting) == {"done"})


def test_a_drain_that_takes_too_long_leaves_the_rest_to_the_next_start(tmp_path):
    with serving(tmp_path, DRAIN_TIMEOUT="0.3") as server:
        [job_id] = server.submit(1, steps=100)
        server.wait(lambda: server.statuses([job_id]) == {"running"})
        exit_code, seconds = server.signal_and_wait(signal.SIGTERM, 10)
        assert exit_code == 0
        assert 0.3 <= seconds < 5
    with serving(tmp_path) as server:
        server.wait(lambda: server.statuses([job_id]) == {"running"})
        assert server.http.get(f"/v1/jobs/{job_id}").json()["attempt"] == 2


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
def test_a_second_signal_ends_at_once_and_takes_even_a_hanging_engine_along(tmp_path):
    with serving(tmp_path) as server:
        [job_id] = server.submit(1, steps=100)
        server.wait(lambda: server.statuses([job_id]) == {"running"})
        process_id = server.process.pid
        [engine] = map(int, Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split())
        os.kill(engine, signal.SIGSTOP)  # a GPU that does not answer
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert server.process.poll() is None
        ended_with, seconds = server.signal_and_wait(signal.SIGINT, 5)
        assert ended_with == 130
        assert seconds < 1
        server.wait(lambda: not is_alive(engine), 2)
        assert "Stopped at once; accepted jobs go on at the next start." in server.log.read_text()
        assert not list((tmp_path / "data" / "server").glob("*.sock"))
    with serving(tmp_path) as server:
        server.wait(lambda: server.statuses([job_id]) == {"running"})


def test_a_second_server_on_the_same_folder_says_why_not_and_the_first_stays_reachable(tmp_path):
    with serving(tmp_path) as server:
        second = subprocess.run(
            SERVE, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=False, timeout=30
        )
        assert second.returncode == 1
        assert "is in use by another server: stop it, or set another DATA_DIR" in second.stderr
        assert "Traceback" not in second.stderr
        assert [path.name for path in (tmp_path / "data" / "server").glob("*admin*")] == ["admin.sock"]
        server.wait(lambda: server.http.get("/readyz").status_code == 200)
