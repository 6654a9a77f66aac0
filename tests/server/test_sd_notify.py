"""systemd hears what it must: READY when the server listens, WATCHDOG while its loop turns, STOPPING when it stops."""

from __future__ import annotations

import asyncio
import itertools
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest

from server.sd_notify import ServiceManager
from tests.processes import server_process


@dataclass
class Manager:
    """Listens as systemd does."""

    path: Path
    heard: list[tuple[float, dict[str, str]]] = field(default_factory=list)
    """Seconds on the monotonic clock, and the values of one datagram."""

    def __post_init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while message := self._socket.recv(4096).decode():
            self.heard.append((time.monotonic(), dict(line.split("=", 1) for line in message.splitlines())))

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", str(self.path))
        self._thread.join(5)
        self._socket.close()

    def values(self, name: str) -> list[str]:
        return [values[name] for _, values in list(self.heard) if name in values]

    def times(self, name: str) -> list[float]:
        return [at for at, values in list(self.heard) if name in values]

    def wait_for(self, name: str, count: int = 1, timeout_s: float = 10) -> None:
        deadline = time.monotonic() + timeout_s
        while len(self.values(name)) < count:
            assert time.monotonic() < deadline, self.heard
            time.sleep(0.01)


@pytest.fixture
def manager(tmp_path):
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.close()


def environment(manager: Manager, **values: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": str(manager.path), **values}


def test_a_server_says_that_it_listens_that_it_lives_and_that_it_stops(manager, tmp_path):
    settings = environment(manager, MODEL_ID="fake-engine:5", WATCHDOG_USEC="400000", DRAIN_TIMEOUT="7")
    with server_process(tmp_path, **settings) as server:
        manager.wait_for("READY")
        assert httpx2.get(f"{server.url}/livez").status_code == 200
        manager.wait_for("WATCHDOG", 5)
        server.wait_until_ready()
        assert "STOPPING" not in manager.heard[-1][1]
        manager.wait_for("STATUS", len(manager.values("STATUS")) + 2)
        assert manager.values("STATUS")[-1] == "engine ready; 0 jobs running, 0 waiting"
    pings = manager.times("WATCHDOG")
    gaps_s = [later - earlier for earlier, later in itertools.pairwise(pings)]
    assert sorted(gaps_s)[len(gaps_s) // 2] == pytest.approx(0.2, rel=0.5)
    assert manager.values("READY") == manager.values("STOPPING") == ["1"]
    # Draining, and what the rest of the end takes: the unit's TimeoutStopSec need not follow DRAIN_TIMEOUT.
    [extension_us] = manager.values("EXTEND_TIMEOUT_USEC")
    assert 7e6 < int(extension_us) < 60e6


def test_the_pings_go_on_while_jobs_are_finished_after_sigterm(manager, tmp_path):
    settings = environment(manager, MODEL_ID="fake-engine:100", WATCHDOG_USEC="200000")
    with server_process(tmp_path, **settings) as server:
        server.wait_until_ready()
        wish = {"prompt": "a cat", "num_inference_steps": 10}
        job = httpx2.post(f"{server.url}/v1/jobs", json=wish).json()
        while httpx2.get(server.url + job["links"]["self"]).json()["status"] == "queued":
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        manager.wait_for("STOPPING")
        stopping_at = time.monotonic()
        server.process.wait(20)
    after = [at for at in manager.times("WATCHDOG") if at > stopping_at]
    assert len(after) >= 3
    assert any(status.startswith("draining; 1 jobs run") for status in manager.values("STATUS"))


async def test_a_loop_that_hangs_gives_no_more_signs(manager):
    telling = ServiceManager(str(manager.path), watchdog_s=0.1)
    telling.ready(lambda: "fine")
    await asyncio.sleep(0.3)
    began = time.monotonic()
    time.sleep(0.5)  # noqa: ASYNC251 -- the fault that is tested
    ended = time.monotonic()
    await asyncio.sleep(0.2)
    await telling.close()
    pings = manager.times("WATCHDOG")
    assert [at for at in pings if began + 0.05 < at < ended] == []
    assert any(at < began for at in pings)
    assert any(at > ended for at in pings)


async def test_nothing_is_told_after_the_end(manager):
    telling = ServiceManager(str(manager.path), watchdog_s=0.05)
    telling.ready(lambda: "fine")
    manager.wait_for("READY")
    await telling.close()
    await telling.close()
    num_heard = len(manager.heard)
    await asyncio.sleep(0.15)
    assert len(manager.heard) == num_heard


async def test_without_a_manager_nothing_is_told_and_nothing_fails():
    telling = ServiceManager.from_environment({})
    telling.ready(lambda: pytest.fail("nobody asked"))
    telling.stopping(1.0)
    await telling.close()


async def test_a_manager_that_has_gone_or_does_not_read_disturbs_nothing(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(tmp_path / "deaf"))
        telling = ServiceManager(str(tmp_path / "deaf"))
        began = time.monotonic()
        for _ in range(1000):
            telling.stopping(1.0)
        assert time.monotonic() - began < 2
    gone = ServiceManager(str(tmp_path / "gone"))
    gone.ready(lambda: "fine")
    await gone.close()


def test_an_abstract_address_is_understood():
    name = f"semantic-bit-test-{time.time_ns()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}")
        listening.settimeout(5)
        ServiceManager(f"@{name}").stopping(2.0)
        assert listening.recv(100) == b"STOPPING=1\nEXTEND_TIMEOUT_USEC=2000000"


def test_what_systemd_says_is_not_passed_on_to_the_engine():
    environment = {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1", "HOME": "/"}
    ServiceManager.from_environment(environment)
    assert environment == {"HOME": "/"}


@pytest.mark.parametrize(
    ("values", "interval_s"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, 10.0),
        ({"WATCHDOG_USEC": "0"}, 10.0),
        ({"WATCHDOG_USEC": "soon"}, 10.0),
        ({}, 10.0),
    ],
)
def test_only_a_watchdog_that_is_meant_for_us_sets_the_pace(values, interval_s):
    telling = ServiceManager.from_environment({"NOTIFY_SOCKET": "/run/notify", **values})
    assert telling._interval_s == interval_s


def test_a_server_that_cannot_start_never_says_that_it_is_ready(manager, tmp_path):
    ended = subprocess.run(
        [sys.executable, "-m", "server", "serve"],
        cwd=Path(__file__).parents[2],
        env={**environment(manager), "MODEL_ID": "no/such-model", "DATA_DIR": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert "MODEL_ID" in ended.stderr
    assert manager.heard == []
