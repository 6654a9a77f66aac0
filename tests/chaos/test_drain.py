"""SIGTERM while six jobs are drawn: at once not ready, all six finished, an end with 0; under `run.sh`, too."""

from __future__ import annotations

import concurrent.futures
import shutil
import signal
import sys
import time
from pathlib import Path

import httpx2
import pytest

from tests.chaos.gateway import SERVE, Gateway, gateway, until
from tests.processes import REPOSITORY

NUM_JOBS = 6
STEPS = 15
SLOTS = {"MODEL_ID": "fake-engine:100", "MAX_CONCURRENT_REQUESTS": str(NUM_JOBS)}


@pytest.fixture(params=["python -m server serve", "run.sh"])
def command(request: pytest.FixtureRequest, tmp_path: Path) -> list[str | Path]:
    """How the server is started. `run.sh` is the real one, in a folder where nothing has to be installed."""
    if request.param != "run.sh":
        return list(SERVE)
    house = tmp_path / "house"
    (house / "scripts").mkdir(parents=True)
    shutil.copy2(REPOSITORY / "run.sh", house)
    (house / "scripts" / "bootstrap.sh").write_text("#!/bin/sh\n")
    (house / "scripts" / "bootstrap.sh").chmod(0o755)
    (house / ".venv").symlink_to(sys.prefix)
    return [house / "run.sh"]


def test_six_running_jobs_are_finished_by_a_server_that_is_told_to_stop(tmp_path, command, report):
    with (
        gateway(tmp_path, command=command, **SLOTS) as server,
        concurrent.futures.ThreadPoolExecutor(NUM_JOBS) as callers,
    ):
        jobs = [server.submit(num_inference_steps=STEPS) for _ in range(NUM_JOBS - 2)]
        drawings = [callers.submit(_draw, server) for _ in range(2)]
        following = [callers.submit(_last_words, server, job["links"]["events"]) for job in jobs]
        until(lambda: server.get("/health").json()["queue"]["images_in_flight"] == NUM_JOBS, 5, "all running")
        waiting = server.submit(num_inference_steps=STEPS)
        server.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        until(lambda: not _is_ready_or_gone(server), 5, "unready")
        unready_s = time.monotonic() - began
        assert server.process.poll() is None
        assert server.process.wait(20) == 0
        assert [drawing.result().status_code for drawing in drawings] == [200, 200]
        assert all('"status":"done"' in words.result() for words in following)
        assert "Traceback" not in server.log.read_text()
    with gateway(tmp_path, command=None, **SLOTS) as server:
        assert [server.job(job["id"])["status"] for job in jobs] == ["done"] * len(jobs)
        assert server.ended(waiting["id"])["attempt"] == 1
    name = Path(command[0]).name
    report(
        f"SIGTERM under {name}: {NUM_JOBS} of {NUM_JOBS} running jobs done, unready after",
        f"{unready_s:.2f} s",
        "<= 0.5 s",
    )
    assert unready_s <= 0.5


def _draw(server: Gateway) -> httpx2.Response:
    wish = {"prompt": "a cat", "num_inference_steps": STEPS, "height": 64, "width": 64}
    return httpx2.post(f"{server.url}/generate", json=wish, timeout=20)


def _last_words(server: Gateway, path: str) -> str:
    """The last data line of an event stream, compact."""
    answer = httpx2.get(server.url + path, timeout=20)
    return [line for line in answer.text.splitlines() if line.startswith("data:")][-1].replace(" ", "")


def _is_ready_or_gone(server: Gateway) -> bool:
    try:
        return server.is_ready()
    except httpx2.TransportError:
        return False
