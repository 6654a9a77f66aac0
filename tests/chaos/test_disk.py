"""A disk that is full or takes no writes: nothing is acknowledged, the server says so, and recovers by itself."""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.chaos.gateway import SERVE, Gateway, gateway, until
from tests.processes import REPOSITORY


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk for 2 MiB and 500 files that is `tmp_path`/data."""
    folder = tmp_path / "data"
    folder.mkdir()
    mounting = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m,nr_inodes=500", "tmpfs", folder], capture_output=True, check=False
    )
    if mounting.returncode:
        pytest.skip("a small disk cannot be mounted here: that takes root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_stops_accepting_and_loses_nothing_and_recovers_when_there_is_room(tmp_path, small_disk, report):
    ballast = small_disk / "ballast"

    def fill() -> None:
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    with gateway(tmp_path, command=None, MODEL_ID="fake-engine:50") as server:
        refused = _suffer(server, fill, ballast.unlink)
    report("disk full", f"{refused} posts refused, running and waiting jobs done", "503, unready, recovers")


def test_a_disk_without_room_for_pictures_is_full_though_the_database_goes_on(tmp_path, small_disk, report):
    """Rows are small and pictures large. Here there are no inodes left, so that what is there can still grow."""
    ballast = small_disk / "ballast"

    def fill() -> None:
        ballast.mkdir()
        with contextlib.suppress(OSError):
            for number in itertools.count():
                (ballast / str(number)).touch()

    with gateway(tmp_path, command=None, MODEL_ID="fake-engine:50") as server:
        refused = _suffer(server, fill, lambda: shutil.rmtree(ballast))
    report("no room for pictures", f"{refused} posts refused, running and waiting jobs done", "503, unready, recovers")


def test_a_disk_that_takes_no_writes_is_no_other(tmp_path, report):
    """What a disk that the kernel has made read-only does: every write of the server fails. Needs no root."""
    with gateway(tmp_path, pipes_log=True, MODEL_ID="fake-engine:50") as server:

        def limit(num_bytes: int) -> Callable[[], object]:
            limits = (num_bytes, resource.RLIM_INFINITY)
            return lambda: resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, limits)

        refused = _suffer(server, limit(0), limit(resource.RLIM_INFINITY))
    report("no writes possible", f"{refused} posts refused, running and waiting jobs done", "503, unready, recovers")


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[tuple[Callable[[], object], Callable[[], object]]]:
    """Two calls that make the folder `tmp_path`/data read-only under whoever uses it, and writable again.

    What is open for writing stays so. Where permissions do not bind us, the folder is mounted over itself.
    """
    folder = tmp_path / "data"
    folder.mkdir()

    def permit(mode: int) -> None:
        for path in (folder, *folder.glob("**/")):
            path.chmod(mode)

    def mount() -> None:
        subprocess.run(["mount", "--bind", "-o", "ro", folder, folder], check=True, capture_output=True)
        mounted.callback(subprocess.run, ["umount", folder], check=True)

    with contextlib.ExitStack() as mounted:
        mounted.callback(permit, 0o700)
        permit(0o500)
        if not os.access(folder, os.W_OK):
            permit(0o700)
            yield lambda: permit(0o500), lambda: permit(0o700)
        else:
            try:
                mount()
            except (OSError, subprocess.CalledProcessError):
                pytest.skip("permissions do not bind root, and nothing can be mounted here")
            mounted.close()
            yield mount, mounted.close


def test_a_folder_that_becomes_read_only_stops_accepting_and_loses_nothing_and_recovers(tmp_path, read_only, report):
    """The database is open for writing since the start: by itself, it would not notice."""
    make_read_only, make_writable = read_only
    with gateway(tmp_path, command=None, MODEL_ID="fake-engine:50") as server:

        def break_disk() -> None:
            make_read_only()
            time.sleep(0.2)  # the last look at the folder was good for 0.1 s
            first = server.try_submit(prompt="not accepted")
            assert first.status_code == 503, first.text
            with pytest.raises(OSError, match=r"Read-only file system|Permission denied"):
                (tmp_path / "data" / "server" / "new").touch()

        refused = _suffer(server, break_disk, make_writable)
    report("read-only folder", f"{refused} posts refused, running and waiting jobs done", "503, unready, recovers")


def _suffer(server: Gateway, break_disk: Callable[[], object], mend_disk: Callable[[], object]) -> int:
    """Break the disk under running and waiting jobs, and mend it. Returns how many posts were refused meanwhile."""
    accepted = [server.submit(num_inference_steps=10)["id"] for _ in range(4)]
    accepted += [server.submit(num_inference_steps=2)["id"] for _ in range(2)]
    until(lambda: server.job(accepted[0])["step"] >= 1, 5, "drawing")
    break_disk()

    def is_refused() -> bool:
        # What was written last may have left room in blocks that SQLite has already.
        answer = server.try_submit(prompt="on a broken disk", num_inference_steps=1)
        if answer.status_code == 202:
            accepted.append(answer.json()["id"])
        return answer.status_code != 202

    until(is_refused, 5, "refused")
    refusals = [server.try_submit(prompt="not accepted") for _ in range(10)]
    assert {(refusal.status_code, refusal.json()["code"]) for refusal in refusals} == {(503, "store_unavailable")}
    assert all(int(refusal.headers["Retry-After"]) >= 1 for refusal in refusals)
    until(lambda: not server.is_ready(), 3, "unready")
    until(lambda: server.job(accepted[0])["step"] == 10, 5, "drawn")
    assert server.get("/livez").status_code == 200
    assert server.job(accepted[0])["status"] in {"running", "done"}  # done only if the disk had a few bytes left
    assert server.try_submit(prompt="not accepted").status_code == 503
    assert server.get("/v1/queue").json()["accepting"] is False
    mend_disk()
    until(lambda: server.get("/v1/queue").json()["accepting"], 5, "accepting again")
    until(server.is_ready, 5, "ready again")
    accepted.append(server.submit()["id"])
    for job_id in accepted:
        done = server.ended(job_id)
        assert (done["status"], done["attempt"]) == ("done", 1)
        assert server.get(done["images"][0]["url"]).status_code == 200
    known = {job["id"]: job["params"]["prompt"] for job in server.get("/v1/jobs?limit=100").json()["jobs"]}
    assert known.keys() == set(accepted), "what was refused is not known"
    return len(refusals) + 1


def test_a_folder_that_cannot_be_written_is_told_in_one_line_at_the_start(tmp_path, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    ended = subprocess.run(
        SERVE,
        cwd=tmp_path,
        env={"MODEL_ID": "fake-engine", "DATA_DIR": str(small_disk), "PORT": "0", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert line.startswith("error: DATA_DIR: ")
    assert "Read-only file system" in line
