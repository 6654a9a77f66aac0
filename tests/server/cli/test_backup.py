"""`python -m server backup` and `restore`: whole or not at all, while the server runs, and nothing else is taken in."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import resource
import sqlite3
import stat
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from engine.params import GenerationParams, InputImage
from server.access.operator_socket import socket_path
from server.cli.arguments import main
from server.store.database import DATABASE_NAME, database_opened
from server.store.database_schema import STEPS
from server.store.input_files import INPUTS_FOLDER, InputFiles
from server.store.job_store import JobStore
from server.store.picture_files import ResultFiles
from server.store.record import NewJob, Outcome, StoredImage
from tests.chaos.gateway import until
from tests.processes import REPOSITORY, server_process
from tests.server.uploads.picture_files import png

PICTURES = [b"first picture", b"second picture"]
WISH = {"prompt": "a cat", "num_inference_steps": 1, "height": 64, "width": 64}


def new(number: int, *, is_bound: bool = False) -> NewJob:
    return NewJob(
        id=f"{number:016x}",
        key_id="local",
        user=None,
        params=GenerationParams(prompt="a cat", seed=7, num_inference_steps=4, height=64, width=64, num_images=2),
        output_format="png",
        is_bound=is_bound,
        idempotency_key=f"wish-{number}",
        request_digest=bytes(32),
        created_at=1_700_000_000.0 + number,
    )


async def fill(folder: Path) -> None:
    """Job 1 is done and has two pictures, job 2 was running, job 3 waits, job 4 runs for a connection."""
    store = await JobStore.open(folder)
    for number in (1, 2, 3, 4):
        await store.add(new(number, is_bound=number == 4))
        if number != 3:
            await store.begin(f"{number:016x}", 1_700_000_010.0)
    files = ResultFiles(folder / "results")
    images = []
    for index, data in enumerate(PICTURES):
        files.write(f"{1:016x}", index, data)
        digest = hashlib.sha256(data).hexdigest()
        images.append(StoredImage(seed=index, media_type="image/png", num_bytes=len(data), sha256=digest))
    await store.finish(f"{1:016x}", 1, Outcome(status="done", finished_at=1_700_000_020.0, images=tuple(images)))
    await store.close()


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """DATA_DIR/server of a stopped server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    asyncio.run(fill(tmp_path / "data" / "server"))
    return tmp_path / "data" / "server"


@pytest.fixture
def archive(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["backup", "backup.tar"]) == 0
    capsys.readouterr()
    return tmp_path / "backup.tar"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another DATA_DIR/server, not made yet; the one that commands work on from now on."""
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "elsewhere"))
    return tmp_path / "elsewhere" / "server"


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


Change = Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]


def rewritten(archive: Path, change: Change) -> Path:
    """The archive with other members."""
    with tarfile.open(archive) as members:
        content = [(member, members.extractfile(member).read()) for member in members]
    change(content)
    with tarfile.open(archive, "w") as members:
        for member, data in content:
            member.size = len(data)
            members.addfile(member, io.BytesIO(data))
    return archive


def replaced(name: str, data: bytes) -> Change:
    def change(content):
        content[:] = [(member, data if member.name == name else before) for member, before in content]

    return change


def renamed(name: str) -> Change:
    def change(content):
        content[1][0].name = name

    return change


def of_type(kind: bytes, target: str = "/etc/passwd") -> Change:
    def change(content):
        member, _ = content[1]
        member.type, member.linkname = kind, target
        content[1] = (member, b"")

    return change


def sparse(position: int) -> Change:
    """A member of some bytes that says that it is 8 GiB long."""

    def change(content):
        member, data = content[position]
        member.pax_headers = {"GNU.sparse.map": f"0,{len(data)}", "GNU.sparse.size": str(2**33)}

    return change


def dropped(position: int) -> Change:
    return lambda content: content.pop(position)


def doubled(content: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    content.insert(2, content[1])


def stranger(content: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    content.insert(1, (tarfile.TarInfo("results/00/0000000000000009.0"), b"x"))


def end_with(**values: object) -> Change:
    def change(content):
        content[-1] = (content[-1][0], json.dumps({**json.loads(content[-1][1]), **values}).encode())

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (renamed("../../../etc/cron.d/x"), "unexpected file"),
        (renamed("/etc/cron.d/x"), "unexpected file"),
        (renamed(f"results/00/../00/{1:016x}.0"), "unexpected file"),
        (renamed(f"results/00/{1:016x}.0\n"), "unexpected file"),
        (of_type(tarfile.SYMTYPE), "is not a plain file"),
        (of_type(tarfile.LNKTYPE, "jobs.sqlite3"), "is not a plain file"),
        (of_type(tarfile.DIRTYPE), "is not a plain file"),
        (of_type(tarfile.CHRTYPE), "is not a plain file"),
        (of_type(tarfile.FIFOTYPE), "is not a plain file"),
        (sparse(0), "is not a plain file"),
        (sparse(1), "is not a plain file"),
        (doubled, "unexpected file"),
        (stranger, "unexpected file"),
        (dropped(0), "does not begin with jobs.sqlite3"),
        (dropped(1), "it holds 4 jobs and 1 pictures, and should hold 4 jobs and 2 pictures"),
        (dropped(3), "it is incomplete: its end is missing"),
        (replaced(f"results/00/{1:016x}.1", b"another picture"), "has a wrong size or checksum"),
        (replaced(f"results/00/{1:016x}.1", b"second picturE"), "has a wrong size or checksum"),
        (replaced("end.json", b"{}"), "damaged"),
        (replaced("end.json", b"[" * 10_000), "damaged"),
        (replaced("end.json", b" " * 100_000), "damaged"),
        (replaced("end.json", b'{"pictures": "two"}'), "damaged"),
        (replaced("jobs.sqlite3", b"nothing"), "the database in the backup cannot be used"),
        (replaced("jobs.sqlite3", b""), "unexpected file"),
        (end_with(database_sha256="0" * 64), "its database has a wrong checksum"),
        (end_with(jobs=5), "should hold 5 jobs"),
    ],
)
def test_an_archive_that_is_not_as_it_was_written_is_refused_and_leaves_nothing(
    archive, elsewhere, tmp_path, capsys, change, told
):
    rewritten(archive, change)
    before = {path for path in tmp_path.rglob("*") if "elsewhere" not in path.parts}
    assert main(["restore", str(archive)]) == 1
    assert told in capsys.readouterr().err
    assert not elsewhere.exists()
    assert list(elsewhere.parent.iterdir()) == []
    assert {path for path in tmp_path.rglob("*") if "elsewhere" not in path.parts} == before


def test_an_archive_that_was_cut_off_or_overwritten_anywhere_is_refused(archive, elsewhere, tmp_path, capsys):
    whole = archive.read_bytes()
    # Whatever lies behind the end's own block is padding.
    end = whole.rindex(b"}") + 1
    # A tar archive that ends between two members is sound, as far as tar can tell.
    between = range(whole.index(f"results/00/{1:016x}.0".encode()), end, 512)
    for place in {*range(0, end, max(1, end // 30)), *between}:
        (tmp_path / "bad.tar").write_bytes(whole[:place])
        assert main(["restore", "bad.tar"]) == 1, place
    # One bit, in places that mean something: not in the padding between members.
    database = whole.index(b"SQLite format 3")
    for place in (0, 100, 150, database, database + 5000, database + 9000, whole.index(PICTURES[0]), end - 3):
        flipped = bytearray(whole)
        flipped[place] ^= 4
        (tmp_path / "bad.tar").write_bytes(flipped)
        assert main(["restore", "bad.tar"]) == 1, place
    assert "error: " in capsys.readouterr().err
    assert list(elsewhere.parent.iterdir()) == []


def test_what_is_no_archive_at_all_is_refused(elsewhere, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for data in (b"", b"not a tar archive", bytes(20_000)):
        (tmp_path / "no.tar").write_bytes(data)
        assert main(["restore", "no.tar"]) == 1
        assert "backup" in capsys.readouterr().err
    assert main(["restore", "nowhere.tar"]) == 1
    assert "nowhere.tar: No such file or directory" in capsys.readouterr().err


def test_a_database_of_a_later_release_is_refused(data, elsewhere, monkeypatch, capsys):
    monkeypatch.setenv("DATA_DIR", str(data.parent))
    assert main(["backup", "backup.tar"]) == 0
    with tarfile.open("backup.tar") as members:
        database = members.extractfile("jobs.sqlite3").read()
    Path("later.sqlite3").write_bytes(database)
    with closing(sqlite3.connect("later.sqlite3")) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute(f"PRAGMA user_version = {len(STEPS) + 1}")
    later = Path("later.sqlite3").read_bytes()
    digest = hashlib.sha256(later).hexdigest()
    rewritten(Path("backup.tar"), replaced("jobs.sqlite3", later))
    rewritten(Path("backup.tar"), end_with(database_sha256=digest))
    monkeypatch.setenv("DATA_DIR", str(elsewhere.parent))
    assert main(["restore", "backup.tar"]) == 1
    assert f"has version {len(STEPS) + 1} and this release knows only versions up to" in capsys.readouterr().err
    assert not elsewhere.exists()


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
