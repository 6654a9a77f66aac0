"""`./run.sh site`: starts three programs, ends all of them however it is ended."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx2
import pytest

from tests.site.whole_site import START, children_of, environment_of, is_alive, whole_site

needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds its processes in /proc")


@needs_proc
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_all_three_end_with_it(number, tmp_path):
    with whole_site(tmp_path, MODEL_ID="fake-engine") as site:
        assert httpx2.get(f"{site.url}/healthz").status_code == 200
        children = children_of(site.process.pid)
        assert len(children) == 3
        site.process.send_signal(number)
        site.process.wait(30)
        deadline = time.monotonic() + 20
        while any(map(is_alive, children)):
            assert time.monotonic() < deadline, [child for child in children if is_alive(child)]
            time.sleep(0.05)
        if number != signal.SIGKILL:
            assert site.process.returncode == 0


def test_a_port_in_use_is_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        environment = environment_of(tmp_path, port, port)
        finished = subprocess.run(START, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 1
    assert finished.stderr == (
        f"error: something listens on port {port} already: end it, or set SITE_PORT to another port\n"
    )
