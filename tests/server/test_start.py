"""The server as a process: how it starts, what it says when it cannot, what it loads, how it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest

from server.config import StartError
from server.draining_server import bound_socket
from server.executors.engine_process import EngineProcess
from server.executors.messages import Configure
from server.serving import serve

REPOSITORY = Path(__file__).parents[2]
UVICORN = ["-m", "uvicorn", "server.main:app", "--port", "0"]
SERVE = ["-m", "server", "serve"]


def environment(**settings: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "MODEL_ID": "fake", "PORT": "0", **settings}


def run(arguments: list[str], folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment(**settings),
        capture_output=True,
        check=False,
        text=True,
        timeout=30,
    )


@pytest.mark.parametrize("arguments", [UVICORN, SERVE], ids=["uvicorn", "serve"])
@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"PORT": "http"}, "error: PORT must be an integer, not 'http'"),
        ({"HOST": "0.0.0.0"}, "error: HOST must be a loopback address while the server has no API keys"),
        ({"MODEL_ID": "nobody/nothing"}, "python scripts/download_model.py nobody/nothing"),
    ],
    ids=["setting", "host", "model"],
)
def test_what_is_wrong_ends_the_start_with_one_readable_line(tmp_path, arguments, settings, line):
    finished = run(arguments, tmp_path, **settings)
    assert finished.returncode in {1, 3}
    assert finished.stdout == ""
    [said] = finished.stderr.splitlines()
    assert line in said


def test_several_workers_are_refused_in_one_line(tmp_path):
    finished = run([*UVICORN, "--workers", "2", "--timeout-worker-healthcheck", "1"], tmp_path)
    said = finished.stderr.splitlines()
    assert [text for text in said if text.startswith("error: ")] == [
        "error: the server must run as one process: leave --workers (and WEB_CONCURRENCY) out"
    ]
    assert "Traceback" not in finished.stderr


def test_a_port_in_use_is_one_line_and_exit_code_1(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        finished = run(SERVE, tmp_path, PORT=str(port))
    assert finished.returncode == 1
    [said] = finished.stderr.splitlines()
    assert said.startswith(f"error: cannot listen on 127.0.0.1:{port}: Address already in use; set PORT")


def test_the_engine_process_begins_before_the_gateway_imports_its_framework():
    """
    The engine's imports are the longest part of the way to the first picture: nothing slow may come before them.
    """
    program = (
        "import sys, server.cli.arguments, server.serving\n"
        "print(sorted({'fastapi', 'starlette', 'uvicorn', 'structlog', 'torch', 'numpy'} & sys.modules.keys()))\n"
    )
    assert run(["-c", program], REPOSITORY).stdout == "[]\n"


def test_a_start_that_fails_leaves_no_engine_process(tmp_path, monkeypatch):
    started: list[EngineProcess] = []
    start = EngineProcess.start

    def noted(configuration: Configure) -> EngineProcess:
        started.append(start(configuration))
        return started[-1]

    monkeypatch.setattr(EngineProcess, "start", noted)
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for name, value in {"MODEL_ID": "fake-engine:5:60000", "PORT": str(port), "DATA_DIR": str(tmp_path)}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit, match="cannot listen on"):
            serve()
    assert [process.returncode for process in started] == [-signal.SIGKILL]


def test_importing_the_app_module_does_nothing(tmp_path):
    program = (
        "import sys, threading, logging\n"
        "import server.main\n"
        "assert threading.active_count() == 1 and not logging.getLogger().handlers\n"
        "assert not {'torch', 'numpy', 'PIL', 'diffusers', 'transformers'} & set(sys.modules), sys.modules\n"
    )
    finished = run(["-c", program], tmp_path, PORT="nonsense")
    assert (finished.returncode, finished.stderr) == (0, "")


class Process:
    """`python -m server serve` with the fake model in a real engine process; killed when the test leaves it."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log"
        self.began = time.monotonic()
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, *SERVE], cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=log, text=True
            )

    def __enter__(self) -> Process:
        self.process.__enter__()
        self.url = re.search(r"http://127\.0\.0\.1:\d+", self.process.stdout.readline())[0]
        return self

    def __exit__(self, *failure) -> None:
        self.process.kill()
        self.process.__exit__(*failure)

    def seconds_to(self, path: str) -> float:
        httpx2.get(self.url + path).raise_for_status()
        return time.monotonic() - self.began

    def wait_until_ready(self, timeout_s: float) -> None:
        while httpx2.get(f"{self.url}/readyz").status_code != 200:
            assert time.monotonic() - self.began < timeout_s, httpx2.get(f"{self.url}/health").text
            time.sleep(0.1)

    @property
    def status(self) -> dict[str, str]:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return dict(line.split(":", 1) for line in lines)

    def end(self, number: int) -> tuple[int, float]:
        began = time.monotonic()
        self.process.send_signal(number)
        return self.process.wait(20), time.monotonic() - began


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc")
def test_a_whole_life_of_the_server_process(tmp_path):
    """
    Health answers while the engine process still imports; the gateway itself never maps torch or numpy; a picture is
    drawn; the memory stays small; SIGTERM ends it with 0.
    """
    with Process(tmp_path) as server:
        # The goal is 1.5 s on an idle machine; tests run beside others.
        assert server.seconds_to("/health") < 5.0
        server.wait_until_ready(60)
        answer = httpx2.post(f"{server.url}/generate", json={"prompt": "a cat", "num_inference_steps": 2}, timeout=30)
        assert answer.status_code == 200
        assert answer.content.startswith(b"\x89PNG")
        mapped = Path(f"/proc/{server.process.pid}/maps").read_text()
        assert not re.search(r"libtorch|/numpy/|/PIL/|/scipy/|tokenizers", mapped)
        assert int(server.status["VmHWM"].split()[0]) < 120 * 1024
        code, seconds = server.end(signal.SIGTERM)
        assert code == 0
        assert seconds < 10
    assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("host", ["a b", "x" * 70, ""])
def test_a_host_that_is_no_address_is_one_line(host):
    with pytest.raises(StartError, match=r"^cannot listen on HOST '.*': .+$"):
        bound_socket(host, 0)


def test_ctrl_c_during_the_start_ends_it_with_0(tmp_path):
    with Process(tmp_path) as server:
        code, seconds = server.end(signal.SIGINT)
    assert code == 0
    assert seconds < 10
