"""The systemd unit is sound, strict, and no stricter than the server can bear."""

from __future__ import annotations

import ctypes.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from server.config import Settings
from server.draining_server import _END_S
from tests.deploy.unit_file import values_of
from tests.processes import _address

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "deploy" / "systemd"
UNIT = FOLDER / "semantic-bit-server.service"
DROP_INS = FOLDER / "semantic-bit-server.service.d"

needs_systemd_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def installed(folder: Path, *drop_ins: str) -> Path:
    """The unit as it would be installed, but for a program that is there on this machine."""
    unit = folder / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/semantic-bit/.venv/bin/python", sys.executable))
    (folder / DROP_INS.name).mkdir()
    for name in drop_ins:
        shutil.copy(DROP_INS / name, folder / DROP_INS.name)
    return unit


def systemd_version() -> int:
    told = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True, check=True).stdout
    return int(re.findall(r"systemd (\d+)", told)[0])


@needs_systemd_analyze
@pytest.mark.parametrize("drop_in", [None, *sorted(path.name for path in DROP_INS.iterdir())])
def test_systemd_has_nothing_to_say_against_the_unit(tmp_path, drop_in):
    if drop_in == "backoff.conf" and systemd_version() < 254:
        pytest.skip("systemd is older than 254, the first that knows RestartSteps")
    unit = installed(tmp_path, *filter(None, [drop_in]))
    told = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (told.returncode, told.stdout + told.stderr) == (0, "")


@needs_systemd_analyze
@pytest.mark.parametrize(
    ("drop_ins", "most"),
    [((), 0.9), (("cuda.conf",), 1.4), (("cuda.conf", "network.conf"), 1.5)],
    ids=["proxy and CPU", "proxy and GPU", "no proxy and GPU"],
)
def test_the_exposure_of_the_service_is_what_the_operations_page_says(tmp_path, drop_ins, most):
    unit = installed(tmp_path, *drop_ins)
    found = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--json=short", f"--threshold={round(most * 10)}", str(unit)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    open_to = {entry["json_field"]: entry["exposure"] for entry in json.loads(found.stdout) if entry["exposure"]}
    assert found.returncode == 0, open_to
    assert not {field for field in open_to if field.startswith(("UserOrDynamicUser", "CapabilityBoundingSet"))}
    page = (REPOSITORY / "docs" / "operations.md").read_text()
    assert f"| {most} |" in page


def test_the_unit_waits_as_long_as_the_server_drains_by_default():
    [stop_s] = values_of(UNIT, "TimeoutStopSec")
    assert int(stop_s) >= Settings.model_fields["drain_timeout"].default + _END_S


def test_every_file_speaks_of_the_same_places_and_the_same_user():
    wrapper = (FOLDER / "semantic-bit").read_text()
    for name, value in (("User", "semantic-bit"), ("WorkingDirectory", "/etc/semantic-bit")):
        assert values_of(UNIT, name) == [value]
    for value in values_of(UNIT, "Environment"):
        name = value.split("=")[0]
        assert value in wrapper or name == "PYTHONFAULTHANDLER", value
    assert values_of(UNIT, "ExecStart")[0].removesuffix(" serve") in wrapper
    assert f"--reuid={values_of(UNIT, 'User')[0]}" in wrapper
    example = (REPOSITORY / "deploy" / "env" / "server.env").read_text()
    assert f"\nDATA_DIR=/var/lib/{values_of(UNIT, 'StateDirectory')[0]}\n" in example


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("systemd-sysusers") is None or shutil.which("systemd-tmpfiles") is None,
    reason="needs root, systemd-sysusers and systemd-tmpfiles",
)
def test_the_user_and_the_folder_of_the_settings_are_made(tmp_path):
    root = tmp_path / "root"
    (root / "etc" / "semantic-bit").mkdir(parents=True)
    (root / "etc" / "semantic-bit" / ".env").write_text("PORT=8000\n")
    for program, name in (("systemd-sysusers", "sysusers"), ("systemd-tmpfiles", "tmpfiles")):
        copy = shutil.copy(FOLDER / f"semantic-bit.{name}", tmp_path / f"{name}.conf")
        create = ["--create"] if name == "tmpfiles" else []
        subprocess.run([program, *create, f"--root={root}", copy], check=True, capture_output=True, timeout=60)
    [line] = [line for line in (root / "etc" / "passwd").read_text().splitlines() if line.startswith("semantic-bit:")]
    _, _, user, group, _, home, shell = line.split(":")
    assert (home, Path(shell).name) == ("/var/lib/semantic-bit", "nologin")
    folder = (root / "etc" / "semantic-bit").stat()
    settings = (root / "etc" / "semantic-bit" / ".env").stat()
    assert (folder.st_mode & 0o7777, folder.st_uid, folder.st_gid) == (0o750, 0, int(group))
    assert (settings.st_mode & 0o7777, settings.st_uid, settings.st_gid) == (0o640, 0, int(group))
    assert user != "0"


@needs_systemd_analyze
@pytest.mark.skipif(ctypes.util.find_library("seccomp") is None, reason="libseccomp is not installed")
def test_the_built_in_model_draws_under_the_units_system_call_filter(tmp_path):
    log = tmp_path / "server.log"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "PORT": "0"}
    environment |= {"DATA_DIR": str(tmp_path / "data"), "MODEL_ID": "models/dreamlet", "REQUEST_TIMEOUT": "120"}
    command = [sys.executable, "-m", "tests.deploy.unit_file", str(UNIT), sys.executable, "-m", "server", "serve"]
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=out, stderr=out)
    try:
        url = _address(process, log)
        wish = {"prompt": "a cat", "num_inference_steps": 2, "height": 64, "width": 64}
        answer = httpx2.post(f"{url}/generate", json=wish, timeout=130)
        assert answer.status_code == 200, answer.text + log.read_text()
        assert answer.content.startswith(b"\x89PNG")
        assert re.search(r"^Seccomp:\t2$", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()
