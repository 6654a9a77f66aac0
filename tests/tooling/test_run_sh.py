"""`run.sh` from a fresh checkout to a second start, in a small house of one tiny wheel and one tiny server."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import httpx2
import pytest
from choose_lock import choose_lock, find_driver
from install_venv import House

from tests.site.visitor import Visitor
from tests.site.whole_site import children_of, is_alive, whole_site

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def house(tmp_path: Path, offline: None) -> Path:
    """A checkout in a folder with a space in its name."""
    folder = tmp_path / "a house"
    for name in ("run.sh", "scripts/bootstrap.sh", "scripts/install_venv.py", "scripts/choose_lock.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    (folder / "constraints").mkdir()
    for cuda in ("cuda12", "cuda13"):
        (folder / f"constraints/{cuda}.txt").write_text("# none\n")
    for lock, cuda in (("requirements.lock.txt", "cuda13"), ("requirements-cuda12.lock.txt", "cuda12")):
        (folder / lock).write_text(f"-c constraints/{cuda}.txt\ntiny==1.0\n")
    (folder / "server").mkdir()
    (folder / "server/__init__.py").touch()
    (folder / "server/__main__.py").write_text("import os, sys, tiny\nprint(os.getpid(), tiny.WHAT, sys.argv[1:])\n")
    return folder


def start(house: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [house / "run.sh", *arguments],
        cwd="/",
        env={**os.environ, "PYTHON": sys.executable},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> tuple[str, str]:
    output, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    return output, told


def test_two_first_starts_at_once_install_once_and_the_next_start_installs_nothing(house: Path) -> None:
    first, second = start(house, "--port", "1 2"), start(house)
    (output, told), (_, also_told) = finish(first), finish(second)
    # exec: the server has the process id of run.sh, so signals reach it.
    assert output == f"{first.pid} tiny ['serve', '--port', '1 2']\n"
    assert (told + also_told).count("Successfully installed tiny-1.0") <= 1
    assert (told + also_told).count("installing requirements") == 1

    third = start(house)
    assert finish(third) == (f"{third.pid} tiny ['serve']\n", "")


def test_a_changed_lock_is_installed_into_the_environment_that_is_there(house: Path, bare_venv: Path) -> None:
    shutil.copytree(bare_venv, house / ".venv", symlinks=True)
    finish(start(house))
    (house / ".venv/kept").touch()
    with (house / "requirements.lock.txt").open("a") as lock:
        lock.write("# newer\n")

    assert "installed in" in finish(start(house))[1]
    assert (house / ".venv/kept").exists()
    assert finish(start(house))[1] == ""


def test_an_installation_that_ended_halfway_is_made_anew(house: Path, bare_venv: Path) -> None:
    shutil.copytree(bare_venv, house / ".venv", symlinks=True)
    lock = house / "requirements.lock.txt"
    good = lock.read_text()
    finish(start(house))
    lock.write_text(good + "not-there==1.0\n")
    failed = start(house)
    _, told = failed.communicate(timeout=120)
    assert failed.returncode == 1
    assert "installing failed" in told
    assert "Traceback" not in told

    installed = next((house / ".venv").rglob("tiny.py"))
    installed.write_text("half of a fi")  # pip would take it for installed
    lock.write_text(good)
    assert "tiny ['serve']" in finish(start(house))[0]
    assert installed.read_text() == "WHAT = 'tiny'\n"


def test_without_a_suitable_python_the_message_says_what_to_do(house: Path, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("bash", "dirname", "id"):
        (tools / tool).symlink_to(shutil.which(tool) or "")
    ended = subprocess.run(
        [house / "run.sh"],
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 1
    assert "Python 3.11, 3.12 or 3.13 is needed" in ended.stderr
    assert "apt-get install python3" in ended.stderr


@pytest.fixture
def checkout(tmp_path: Path, offline: None) -> Path:
    """This checkout, in a folder with a space in its name, whose environment is the one that runs the tests."""
    folder = tmp_path / "a house"
    folder.mkdir()
    for name in ("client", "engine", "models", "newdreamflow", "server"):
        (folder / name).symlink_to(ROOT / name)
    for name in ("constraints", "scripts"):
        shutil.copytree(ROOT / name, folder / name)
    for file in (ROOT / "run.sh", *ROOT.glob("requirements*.lock.txt")):
        shutil.copy2(file, folder)
    house = House(folder)
    house.python.parent.mkdir(parents=True)
    house.python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    house.python.chmod(0o755)
    installed = house.wanted(choose_lock(find_driver()), ["site"], python="{}.{}".format(*sys.version_info))
    house.stamp_file.write_text(json.dumps(asdict(installed)))
    return folder


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds its processes in /proc")
def test_the_site_is_one_command_that_says_where_it_is_and_one_ctrl_c(checkout: Path, tmp_path: Path) -> None:
    with whole_site(tmp_path, command=[checkout / "run.sh", "site"], MODEL_ID="fake-engine:1") as site:
        told = site.log.read_text()
        assert "installing" not in told
        assert f"Site:       {site.url}\nGPU server: {site.gpu_server_url} (API: {site.gpu_server_url}/docs)\n" in told
        assert httpx2.get(f"{site.gpu_server_url}/livez").status_code == 200
        with closing(Visitor(site.url, "ada")) as visitor:
            visitor.dream()
        parts = children_of(site.process.pid)
        assert len(parts) == 3
        site.process.send_signal(signal.SIGINT)
        assert site.process.wait(60) == 0
        deadline = time.monotonic() + 20
        while any(map(is_alive, parts)):
            assert time.monotonic() < deadline, site.log.read_text()
            time.sleep(0.05)
        for url in (site.url, site.gpu_server_url):
            with pytest.raises(httpx2.ConnectError):
                httpx2.get(url)
