"""`python -m server backup` and `restore`: what comes back, and what is never touched."""

from __future__ import annotations

import asyncio
import hashlib
import os
import resource
import sqlite3
import stat
import subprocess
import sys
import tarfile
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import msgspec

from engine.params import InputImage
from server.access.operator_socket import socket_path
from server.cli.arguments import main
from server.store.database import DATABASE_NAME, database_opened
from server.store.input_files import INPUTS_FOLDER, InputFiles
from server.store.job_store import JobStore
from server.store.picture_files import ResultFiles
from tests.chaos.gateway import until
from tests.processes import REPOSITORY, server_process
from tests.server.cli.backups import PICTURES, new
from tests.server.uploads.picture_files import png

WISH = {"prompt": "a cat", "num_inference_steps": 1, "height": 64, "width": 64}


def rows(folder: Path) -> list[tuple[object, ...]]:
    with database_opened(folder) as connection:
        return [tuple(row) for row in connection.execute("SELECT * FROM jobs ORDER BY seq")]


def test_what_is_restored_is_what_was_there(data, archive, elsewhere, capsys):
    assert main(["restore", str(archive)]) == 0
    assert "restored 4 jobs and 2 pictures of 20" in capsys.readouterr().err
    assert rows(elsewhere) == rows(data)
    files = ResultFiles(elsewhere / "results")
    assert [files.read(f"{1:016x}", index) for index in (0, 1)] == PICTURES
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o700
    assert stat.S_IMODE((elsewhere / DATABASE_NAME).stat().st_mode) == 0o600
    assert list(elsewhere.parent.iterdir()) == [elsewhere]


def test_what_is_restored_is_on_the_disk_before_it_has_its_name(archive, elsewhere, monkeypatch):
    """
    A power cut leaves all of it or nothing.
    """
    synced: list[int] = []
    synced_before: list[int] = []

    def fsync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)

    rename = Path.rename

    def note_and_rename(path: Path, target: Path) -> Path:
        synced_before[:] = synced
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", note_and_rename)
    assert main(["restore", str(archive)]) == 0
    made = [elsewhere / DATABASE_NAME, elsewhere, *(elsewhere / "results").rglob("*"), elsewhere / "results"]
    assert len(made) == 6
    for path in made:
        assert path.stat().st_ino in synced_before, path
    assert {elsewhere.parent.stat().st_ino, elsewhere.parent.parent.stat().st_ino} <= {*synced[len(synced_before) :]}


def test_the_archive_is_for_its_owner_alone_and_holds_nothing_but_jobs_and_pictures(data, archive):
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    with tarfile.open(archive) as members:
        assert [member.name for member in members] == [
            "jobs.sqlite3",
            f"results/00/{1:016x}.0",
            f"results/00/{1:016x}.1",
            "end.json",
        ]
    assert {path.name for path in archive.parent.iterdir()} == {"backup.tar", "data"}
    assert not list(data.glob(".snapshot-*"))


def test_a_backup_goes_through_a_pipe_and_back(data, elsewhere):
    command = [sys.executable, "-m", "server"]
    environment = {"PYTHONPATH": str(REPOSITORY), "PATH": ""}
    written = subprocess.run(
        [*command, "backup", "-"],
        env={**environment, "DATA_DIR": str(data.parent)},
        capture_output=True,
        check=True,
        timeout=60,
    )
    subprocess.run(
        [*command, "restore", "-"],
        env={**environment, "DATA_DIR": str(elsewhere.parent)},
        input=written.stdout,
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert rows(elsewhere) == rows(data)


def test_a_file_that_is_there_is_not_overwritten(archive, capsys):
    before = archive.read_bytes()
    assert main(["backup", "backup.tar"]) == 1
    assert capsys.readouterr().err == "error: backup.tar exists already: remove it, or choose another name\n"
    assert archive.read_bytes() == before


def test_a_folder_that_is_in_use_or_not_empty_is_not_touched(data, archive, capsys):
    before = rows(data)
    assert main(["restore", str(archive)]) == 1
    assert "is not empty: move it away" in capsys.readouterr().err
    assert rows(data) == before


def test_pictures_that_are_gone_or_damaged_are_counted_and_left_out(data, elsewhere, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DATA_DIR", str(data.parent))
    (data / "results" / "00" / f"{1:016x}.0").unlink()
    (data / "results" / "00" / f"{1:016x}.1").write_bytes(b"second picturE")
    assert main(["backup", "backup.tar"]) == 0
    assert "4 jobs and 0 pictures" in (told := capsys.readouterr().err)
    assert "(2 more pictures were gone or damaged)" in told
    monkeypatch.setenv("DATA_DIR", str(elsewhere.parent))
    assert main(["restore", "backup.tar"]) == 0


def test_a_job_that_waits_is_restored_with_the_pictures_that_it_starts_from(
    data, elsewhere, serve, monkeypatch, capsys
):
    """A server on the restored folder draws it; a picture that is damaged is counted, and its job fails alone."""
    whole, damaged = png(64, 64), png(64, 64, seed=1)
    named = {hashlib.sha256(file).hexdigest(): file for file in (whole, damaged)}
    whole_name, damaged_name = named

    async def add_jobs() -> None:
        store = await JobStore.open(data)
        for number, name in ((5, whole_name), (6, damaged_name)):
            image = InputImage(sha256=name, width=64, height=64)
            job = new(number)
            waiting = msgspec.structs.replace(job, params=replace(job.params, image=image, strength=1.0))
            await store.add(waiting, {name: len(named[name])})
        await store.close()

    asyncio.run(add_jobs())
    inputs = InputFiles(data / INPUTS_FOLDER)
    inputs.write(whole_name, whole)
    inputs.write(damaged_name, damaged[:-1])
    monkeypatch.setenv("DATA_DIR", str(data.parent))
    assert main(["backup", "inputs.tar"]) == 0
    assert "6 jobs and 3 pictures" in (told := capsys.readouterr().err)
    assert "(1 more pictures were gone or damaged)" in told
    monkeypatch.setenv("DATA_DIR", str(elsewhere.parent))
    assert main(["restore", "inputs.tar"]) == 0
    assert InputFiles(elsewhere / INPUTS_FOLDER).names() == {whole_name}
    running = serve(data_dir=str(elsewhere.parent))
    with httpx2.Client(base_url=running.url, timeout=60) as client:

        def ended(number: int) -> dict[str, Any]:
            path = f"/v1/jobs/{number:016x}"
            return until(lambda: (job := client.get(path).json())["finished_at"] and job, 60, "ended")

        assert ended(5)["status"] == "done"
        assert ended(6)["error"]["code"] == "input_expired"
    [drawn] = [job for job in running.executor.started if job.id == f"{5:016x}"]
    assert drawn.inputs == {whole_name: whole}


def test_a_full_disk_leaves_no_half_backup(data, tmp_path):
    """
    The kernel's limit of a file's size stands for the disk: the database fits, the archive does not.
    """
    room = (data / DATABASE_NAME).stat().st_size + 1000
    finished = subprocess.run(
        [sys.executable, "-m", "server", "backup", "backup.tar"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "", "DATA_DIR": str(data.parent)},
        capture_output=True,
        check=False,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)),
    )
    assert (finished.returncode, finished.stderr) == (1, b"error: File too large\n")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_only_the_operators_socket_gives_a_copy_away(serve):
    answer = httpx2.get(f"{serve().url}/v1/backup")
    assert (answer.status_code, answer.json()["code"]) == (403, "operator_only")


def test_a_copy_that_a_killed_server_left_behind_is_removed_by_the_next_one(data):
    (data / ".snapshot-0123456789abcdef.sqlite3").write_bytes(b"half")
    assert main(["backup", "backup.tar"]) == 0
    assert not list(data.glob(".snapshot-*"))


class Posts(threading.Thread):
    """Asks for pictures as fast as it is answered, until told to stop."""

    def __init__(self, url: str, name: str) -> None:
        super().__init__()
        self.acknowledged: list[str] = []
        """Ids, in the order of the answers."""
        self._url, self._key = url, name
        self._is_over = threading.Event()

    def run(self) -> None:
        with httpx2.Client(base_url=self._url, timeout=10) as client:
            while not self._is_over.is_set():
                key = {"Idempotency-Key": f"{self._key}-{len(self.acknowledged)}"}
                answer = client.post("/v1/jobs", json=WISH, headers=key)
                assert answer.status_code == 202, answer.text
                self.acknowledged.append(answer.json()["id"])
                time.sleep(0.03)  # what is accepted must be drawn, too, before the test ends

    def stop(self) -> None:
        self._is_over.set()
        self.join(20)


def command(folder: Path, *arguments: str) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "server", *arguments],
        cwd=REPOSITORY,
        env={"DATA_DIR": str(folder), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr


def test_a_backup_taken_under_load_restores_to_a_server_that_finishes_every_job_acknowledged_before(tmp_path):
    settings = {
        "MODEL_ID": "fake-engine:20",
        "MAX_QUEUED_REQUESTS": "100000",
        "LOG_LEVEL": "warning",
        "LIMIT_REQUESTS_PER_MINUTE": "0",
        "LIMIT_JOBS": "0",
        "LIMIT_WORK_UNITS_PER_HOUR": "0",
    }
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    with server_process(first, **settings) as server:
        server.wait_until_ready()
        callers = [Posts(server.url, str(number)) for number in range(4)]
        for caller in callers:
            caller.start()
        deadline = time.monotonic() + 20
        while sum(len(caller.acknowledged) for caller in callers) < 60:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        # Another user's job has the next turn, and runs for 6 s: two model calls a step.
        slow = httpx2.post(
            f"{server.url}/v1/jobs", json={**WISH, "user": "ann", "num_inference_steps": 150, "sampler": "Heun"}
        ).json()
        while httpx2.get(f"{server.url}/v1/jobs/{slow['id']}").json()["status"] != "running":
            time.sleep(0.01)
        before = {slow["id"]} | {job_id for caller in callers for job_id in caller.acknowledged}
        command(first / "var", "backup", str(tmp_path / "backup.tar"))
        after = sum(len(caller.acknowledged) for caller in callers)
        for caller in callers:
            caller.stop()
        assert after > len(before), "nothing was accepted while the backup was taken"
        assert socket_path(first / "var" / "server").exists()
        server.process.kill()  # the first machine is lost
        server.process.wait(10)
        server.process.returncode = 0  # what `server_process` asks of a server that it ends itself
    with tarfile.open(tmp_path / "backup.tar") as members:
        (tmp_path / "copy.sqlite3").write_bytes(members.extractfile(DATABASE_NAME).read())
    with closing(sqlite3.connect(f"file:{tmp_path}/copy.sqlite3?immutable=1", uri=True)) as connection:
        statuses = dict(connection.execute("SELECT status, count(*) FROM jobs GROUP BY status"))
    assert statuses.keys() >= {"queued", "running", "done"}, "the backup was not taken in the middle of things"

    command(second / "var", "restore", str(tmp_path / "backup.tar"))
    with server_process(second, **settings) as server, httpx2.Client(base_url=server.url) as client:
        deadline = time.monotonic() + 60
        while (depth := client.get("/v1/queue").json())["waiting"] + depth["running"]:
            assert time.monotonic() < deadline, depth
            time.sleep(0.05)
        for job_id in before:
            job = client.get(f"/v1/jobs/{job_id}").json()
            assert job["status"] == "done", job
            [picture] = job["images"]
            assert client.get(picture["url"]).status_code == 200
        # A caller that asks again under its key gets its own job.
        again = client.post("/v1/jobs", json=WISH, headers={"Idempotency-Key": "0-0"})
        assert (again.status_code, again.json()["id"]) == (200, callers[0].acknowledged[0])
