"""The job store's promises on bad days: two servers, a damaged file, a newer schema, a full disk, kill -9."""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from server.errors import IdempotencyMismatchError
from server.store import database, database_schema
from server.store.database import DATABASE_NAME
from server.store.errors import (
    StoreDamagedError,
    StoreLockedError,
    StoreTooNewError,
    StoreUnavailableError,
)
from server.store.job_store import JobStore
from server.store.record import JobQuery
from tests.server.store.store_records import new_job

REPOSITORY = Path(__file__).parents[3]


@contextlib.contextmanager
def mounted(folder, options):
    """A file system in memory, of its own; tests that need one are skipped where this user may not mount."""
    folder.mkdir(exist_ok=True)
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "none", folder], capture_output=True, text=True, check=False
    )
    if mount.returncode:
        pytest.skip(f"no right to mount a file system: {mount.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


async def kept(folder):
    """Ids of all jobs of a closed store, whose database must be sound."""
    connection = sqlite3.connect(folder / DATABASE_NAME)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    store = await JobStore.open(folder)
    found = {record.id: record.status for record in await store.page(JobQuery(key_id=None, limit=10**9))}
    await store.close()
    return found


# --- opening ----------------------------------------------------------------------------------------------------------


async def test_a_folder_is_made_for_this_user_only(tmp_path):
    folder = tmp_path / "var" / "server"
    store = await JobStore.open(folder)
    await store.add(new_job())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = list(folder.glob("jobs.sqlite3*"))
    assert len(files) == 2  # the WAL too
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    await store.close()


async def test_a_second_server_on_one_folder_is_refused_and_the_first_goes_on(tmp_path):
    first = await JobStore.open(tmp_path)
    with pytest.raises(StoreLockedError, match="another server"):
        await JobStore.open(tmp_path)
    await first.add(new_job())
    await first.close()
    await (await JobStore.open(tmp_path)).close()


def ran(program, *arguments):
    """A Python program of a few lines, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


async def test_a_server_killed_without_warning_leaves_no_lock(tmp_path):
    program = (
        "import os, pathlib, sys\n"
        "from server.store.database import database_opened\n"
        "with database_opened(pathlib.Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    assert ran(program, tmp_path).returncode == -signal.SIGKILL
    await (await JobStore.open(tmp_path)).close()


async def test_a_database_that_another_program_has_open_is_refused(tmp_path):
    await (await JobStore.open(tmp_path)).close()
    other = sqlite3.connect(tmp_path / DATABASE_NAME, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreLockedError, match="another program"):
        await JobStore.open(tmp_path)
    other.close()
    await (await JobStore.open(tmp_path)).close()


async def test_no_other_program_reads_or_writes_the_database_of_a_running_server(tmp_path):
    """
    Two connections to one WAL database can damage it with the SQLite releases that most machines have.
    """
    store = await JobStore.open(tmp_path)
    program = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('SELECT * FROM jobs')"
    other = ran(program, tmp_path / DATABASE_NAME)
    assert "database is locked" in other.stderr
    await store.close()


async def test_a_file_that_is_no_database_is_refused_with_a_way_out(tmp_path):
    (tmp_path / DATABASE_NAME).write_bytes(b"no database at all " * 1000)
    with pytest.raises(StoreDamagedError, match=r"jobs\.sqlite3 is damaged .*: restore a backup") as refused:
        await JobStore.open(tmp_path)
    assert "\n" not in str(refused.value)


async def test_a_damaged_page_is_found_at_the_start_and_nothing_is_changed(tmp_path):
    store = await JobStore.open(tmp_path)
    await asyncio.gather(*(store.add(new_job()) for _ in range(300)))
    await store.close()
    path = tmp_path / DATABASE_NAME
    data = bytearray(path.read_bytes())
    middle = len(data) // 2 // 4096 * 4096
    data[middle : middle + 4096] = os.urandom(4096)
    path.write_bytes(data)
    with pytest.raises(StoreDamagedError, match="is damaged") as refused:
        await JobStore.open(tmp_path)
    assert "\n" not in str(refused.value)
    assert path.read_bytes() == data


async def test_a_database_of_a_later_release_is_refused_in_one_clear_line(tmp_path):
    await (await JobStore.open(tmp_path)).close()
    connection = sqlite3.connect(tmp_path / DATABASE_NAME)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(
        StoreTooNewError, match=r"version 99 and this release knows only versions up to \d+:"
    ) as refused:
        await JobStore.open(tmp_path)
    assert "\n" not in str(refused.value)


async def test_an_older_database_takes_the_steps_that_it_lacks_and_keeps_its_jobs(tmp_path, monkeypatch):
    store = await JobStore.open(tmp_path)
    job_id = (await store.add(new_job())).id
    await store.close()
    later = ("CREATE TABLE colours (name TEXT) STRICT", "INSERT INTO colours SELECT id FROM jobs")
    monkeypatch.setattr(database_schema, "STEPS", (*database_schema.STEPS, later))
    for _ in range(2):
        await (await JobStore.open(tmp_path)).close()
    connection = sqlite3.connect(tmp_path / DATABASE_NAME)
    assert connection.execute("PRAGMA user_version").fetchone() == (len(database_schema.STEPS),)
    assert connection.execute("SELECT name FROM colours").fetchall() == [(job_id,)], "taken once"
    connection.close()


async def test_a_step_that_fails_leaves_the_database_as_it_was(tmp_path, monkeypatch):
    await (await JobStore.open(tmp_path)).close()
    with monkeypatch.context() as patched:
        patched.setattr(
            database_schema, "STEPS", (*database_schema.STEPS, ("CREATE TABLE half (name TEXT)", "not SQL"))
        )
        with pytest.raises(StoreUnavailableError, match="syntax error"):
            await JobStore.open(tmp_path)
    store = await JobStore.open(tmp_path)
    tables = await store._thread.read(
        lambda connection: connection.execute("SELECT name FROM sqlite_schema").fetchall()
    )
    assert "half" not in {row["name"] for row in tables}
    await store.close()


async def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    with mounted(tmp_path / "disk", "size=4m,ro") as disk, pytest.raises(StoreUnavailableError, match="Read-only"):
        await JobStore.open(disk)


async def test_an_old_sqlite_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(database.sqlite3, "sqlite_version_info", (3, 31, 0))
    with pytest.raises(StoreUnavailableError, match=r"SQLite must be 3\.37 or later"):
        await JobStore.open(tmp_path)


# --- a failing disk ---------------------------------------------------------------------------------------------------


class FailingConnection:
    """A connection whose statements fail on demand."""

    def __init__(self, connection):
        self._connection = connection
        self.fails_at = ""
        self.error = sqlite3.OperationalError("disk I/O error")

    def __getattr__(self, name):
        return getattr(self._connection, name)

    def execute(self, statement, *arguments):
        if self.fails_at and statement.strip().startswith(self.fails_at):
            raise self.error
        return self._connection.execute(statement, *arguments)


@pytest.fixture
async def failing(tmp_path, monkeypatch):
    """A store, and the connection that it uses."""
    connections = []

    @contextlib.contextmanager
    def opened(folder):
        with database.database_opened(folder) as connection:
            connections.append(FailingConnection(connection))
            yield connections[-1]

    monkeypatch.setattr("server.store.job_store.database_opened", opened)
    store = await JobStore.open(tmp_path)
    yield store, connections[0]
    connections[0].fails_at = ""
    await store.close()


@pytest.mark.parametrize("statement", ["BEGIN", "INSERT", "COMMIT"])
async def test_whatever_fails_on_the_way_nothing_is_half_done_and_it_works_again(failing, statement):
    store, connection = failing
    before = await store.add(new_job())
    connection.fails_at = statement
    failed = await asyncio.gather(*(store.add(new_job()) for _ in range(5)), return_exceptions=True)
    assert all(isinstance(error, StoreUnavailableError) for error in failed)
    assert "disk I/O error" in str(failed[0])
    assert await store.page(JobQuery(key_id=None, limit=10)) == [before], "what is committed can still be read"
    connection.fails_at = ""
    after = await store.add(new_job())
    assert await store.page(JobQuery(key_id=None, limit=10)) == [after, before]


@pytest.mark.parametrize("statement", ["SAVEPOINT", "RELEASE"])
async def test_where_one_that_is_refused_is_undone_and_that_fails_nothing_is_half_done(failing, statement):
    store, connection = failing
    before = await store.add(new_job(idempotency_key="taken"))
    other = new_job(idempotency_key="taken", request_digest=b"another")
    connection.fails_at = statement
    busy = asyncio.create_task(store._thread.write(lambda _: time.sleep(0.1)))
    await asyncio.sleep(0.02)  # so that the next three share a transaction
    failed = await asyncio.gather(*(store.add(new) for new in (new_job(), other, new_job())), return_exceptions=True)
    await busy
    assert all(isinstance(error, StoreUnavailableError) for error in failed)
    connection.fails_at = ""
    after = await store.add(new_job())
    assert await store.page(JobQuery(key_id=None, limit=10)) == [after, before]


async def test_of_writes_that_share_a_transaction_only_those_are_undone_that_were_refused(failing):
    store, _ = failing
    await store.add(new_job(idempotency_key="taken"))
    others = [new_job(idempotency_key="taken", request_digest=b"another") for _ in range(2)]
    busy = asyncio.create_task(store._thread.write(lambda _: time.sleep(0.1)))
    await asyncio.sleep(0.02)
    news = [new_job(), others[0], new_job(), others[1]]
    first, refused, second, refused_too = await asyncio.gather(*map(store.add, news), return_exceptions=True)
    await busy
    assert isinstance(refused, IdempotencyMismatchError)
    assert isinstance(refused_too, IdempotencyMismatchError)
    assert (await store.page(JobQuery(key_id=None, limit=10)))[:2] == [second, first]


async def test_a_rollback_that_fails_too_is_made_good_later(failing):
    store, connection = failing
    connection.fails_at = "COMMIT"
    inner, connection._connection = connection._connection, FailingConnection(connection._connection)
    connection._connection.fails_at = "ROLLBACK"
    with pytest.raises(StoreUnavailableError):
        await store.add(new_job())
    connection._connection, connection.fails_at = inner, ""
    with pytest.raises(StoreUnavailableError):
        await store.add(new_job())
    last = await store.add(new_job())
    assert await store.page(JobQuery(key_id=None, limit=10)) == [last]


async def test_a_disk_that_cannot_be_read_is_told_and_forgotten(failing):
    store, connection = failing
    record = await store.add(new_job())
    connection.fails_at = "SELECT"
    with pytest.raises(StoreUnavailableError):
        await store.get(record.id)
    connection.fails_at = ""
    assert await store.get(record.id) == record


async def test_damage_found_while_running_is_told_as_such(failing):
    store, connection = failing
    connection.fails_at, connection.error = "COMMIT", sqlite3.DatabaseError("database disk image is malformed")
    with pytest.raises(StoreUnavailableError, match="malformed"):
        await store.check_writable()


async def test_on_a_full_disk_nothing_is_acknowledged_nothing_is_lost_and_room_is_enough_to_go_on(tmp_path):
    with mounted(tmp_path / "disk", "size=2m") as disk:
        store = await JobStore.open(disk / "server")
        acknowledged = {(await store.add(new_job())).id for _ in range(20)}
        ballast = disk / "ballast"
        with ballast.open("wb", buffering=0) as file:
            for size in (4096, 512):
                with contextlib.suppress(OSError):
                    while file.write(b"x" * size):
                        pass
        refusals = []
        for _ in range(200):
            try:
                acknowledged.add((await store.add(new_job())).id)
            except StoreUnavailableError as error:
                refusals.append(str(error))
        assert len(refusals) > 100
        assert all("full" in refusal for refusal in refusals)
        assert {record.id for record in await store.page(JobQuery(key_id=None, limit=10**6))} == acknowledged
        with pytest.raises(StoreUnavailableError):
            await asyncio.gather(*(store.check_writable() for _ in range(50)))
        ballast.unlink()
        await store.check_writable()
        acknowledged.add((await store.add(new_job())).id)
        await store.close()
        assert set(await kept(disk / "server")) == acknowledged


# --- kill -9 ----------------------------------------------------------------------------------------------------------


def acknowledgements_until_killed(folder, round_number, seconds):
    """Let a process add jobs, and kill it; what it said, the last line perhaps cut short."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.server.store.store_worker", folder, str(round_number)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    lines = b""
    kill_at = None
    with process, selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        deadline = time.monotonic() + 60
        while kill_at is None or time.monotonic() < kill_at:
            assert time.monotonic() < deadline, "the worker says nothing"
            if selector.select(0.02):
                lines += os.read(process.stdout.fileno(), 2**20)
                kill_at = kill_at or time.monotonic() + seconds
        process.kill()
        lines += process.stdout.read()
    assert process.returncode == -signal.SIGKILL
    return [line.split() for line in lines.decode().split("\n")[:-1]]


async def test_after_kill_9_every_acknowledged_job_is_found_again(tmp_path):
    """Ten rounds on one database, each killed at another moment."""
    acknowledged = {}
    for round_number in range(10):
        lines = await asyncio.to_thread(
            acknowledgements_until_killed, tmp_path, round_number, 0.05 + 0.037 * round_number
        )
        assert lines
        acknowledged |= {job_id: status for status, job_id in lines}
        found = await kept(tmp_path)
        lost = {
            job_id for job_id, status in acknowledged.items() if found.get(job_id) not in {status, "running", "done"}
        }
        assert not lost
        assert all(found[job_id] == "done" for job_id, status in acknowledged.items() if status == "done")
