"""`python -m server keys ...`: the same words for a running server and for a store that nobody has open."""

from __future__ import annotations

import asyncio
import json
import re
import resource
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from server.cli.arguments import main
from server.cli.doctor.keys import look_at_keys
from server.store.errors import StoreUnavailableError
from server.store.job_store import JobStore
from tests.processes import REPOSITORY, ServerProcess, server_process
from tests.server.store.store_records import lost, new_job

TEXT = re.compile(r"sb_live_[0-9a-f]{12}_[0-9A-Za-z]{46}")


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """DATA_DIR of a server that has never run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("API_KEY", raising=False)
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("running")
    with server_process(folder, MODEL_ID="fake-engine:1", DRAIN_TIMEOUT="0", API_KEY="") as running:
        yield running


@pytest.fixture
def running(server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> ServerProcess:
    """A server, and the command line speaks to it."""
    monkeypatch.chdir(server.log.parent)
    monkeypatch.delenv("API_KEY", raising=False)
    monkeypatch.setenv("DATA_DIR", str(server.log.parent / "var"))
    return server


@pytest.fixture(params=["stopped", "running"])
def either(request: pytest.FixtureRequest) -> object:
    """Whichever has the keys, what the command line says and does is the same."""
    return request.getfixturevalue(request.param)


def made(capsys, *arguments: str) -> str:
    assert main(["keys", *arguments]) == 0
    [text] = capsys.readouterr().out.splitlines()
    assert TEXT.fullmatch(text)
    return text


def listed(capsys) -> dict[str, dict]:
    capsys.readouterr()
    assert main(["keys", "list", "--json"]) == 0
    return {key["id"]: key for key in json.loads(capsys.readouterr().out)}


def id_of(text: str) -> str:
    return text[8:20]


def status(running: ServerProcess, text: str) -> int:
    return httpx2.get(f"{running.url}/v1/queue", headers={"Authorization": f"Bearer {text}"}).status_code


def test_the_first_key_is_made_before_the_first_start_and_stands_alone_on_standard_output(stopped, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    create = [sys.executable, "-m", "server", "keys", "create", "--name", "me"]
    finished = subprocess.run(create, capture_output=True, check=True, text=True, timeout=30)
    assert TEXT.fullmatch(finished.stdout.removesuffix("\n"))
    told = finished.stderr.splitlines()
    assert told[0].endswith("(me) has the scopes generate, read; it is shown this once:")
    assert told[1] == "it is the first key: from now on every caller needs one, programs on this machine too"
    assert finished.stdout.strip() not in finished.stderr
    assert stat.S_IMODE((stopped / "server").stat().st_mode) == 0o700


HIDDEN = "the jobs that were drawn without a key are hidden from now on"


@pytest.mark.parametrize("takes_over", [False, True])
@pytest.mark.parametrize("is_first", [True, False])
def test_jobs_drawn_without_a_key_are_given_to_a_key_or_said_to_be_hidden(stopped, capsys, takes_over, is_first):
    """Nothing is hidden in silence; the jobs of other keys, and those that have not ended, stay where they are."""

    async def fill():
        store = await JobStore.open(stopped / "server")
        ended, waits, others = new_job(idempotency_key="k"), new_job(), new_job(key_id="other", idempotency_key="k")
        for job in (ended, waits, others):
            await store.add(job)
        for job in (ended, others):
            await store.fail_queued(job.id, lost("failed"))
        await store.close()
        return ended, waits, others

    async def owners(jobs):
        store = await JobStore.open(stopped / "server")
        found = [(await store.get(job.id)).new.key_id for job in jobs]
        await store.close()
        return found

    if not is_first:
        made(capsys, "create", "--name", "first")
    jobs = asyncio.run(fill())
    capsys.readouterr()
    assert main(["keys", "create", "--name", "me", *(["--take-over-local"] if takes_over else [])]) == 0
    shown = capsys.readouterr()
    assert (HIDDEN in shown.err) == (is_first and not takes_over)
    new_owner = id_of(shown.out.strip()) if takes_over else "local"
    assert asyncio.run(owners(jobs)) == [new_owner, "local", "other"]


def test_a_key_has_what_was_asked_for(either, capsys):
    text = made(
        capsys, "create", "--name", "Zoë's job", "--scope", "read", "--scope", "metrics", "--expires-days", "1.5"
    )
    key = listed(capsys)[id_of(text)]
    assert (key["name"], key["scopes"], key["state"]) == ("Zoë's job", ["metrics", "read"], "active")
    assert (key["created_at"] < key["expires_at"], key["last_used_at"]) == (True, None)
    assert main(["keys", "list"]) == 0
    table = capsys.readouterr().out
    assert text.rsplit("_", 1)[1] not in table
    assert table.splitlines()[0].split() == ["ID", "NAME", "STATE", "SCOPES", "CREATED", "EXPIRES", "LAST", "USED"]
    assert re.search(rf"^{id_of(text)}  Zoë's job +active +metrics read ", table, flags=re.MULTILINE)


def test_a_rotated_key_is_told_with_its_grace(either, capsys):
    old = made(capsys, "create", "--name", "me")
    new = made(capsys, "rotate", id_of(old), "--grace-hours", "2")
    assert id_of(new) == id_of(old)
    assert new != old
    assert listed(capsys)[id_of(old)]["old_until"] is not None
    assert main(["keys", "rotate", id_of(old), "--grace-hours", "0"]) == 0
    assert "the old one is taken no more" in capsys.readouterr().err
    assert listed(capsys)[id_of(old)]["old_until"] is None


def test_a_revoked_key_stays_listed_and_is_not_rotated(either, capsys):
    text = made(capsys, "create", "--name", "me")
    for _ in range(2):
        assert main(["keys", "revoke", id_of(text)]) == 0
        assert capsys.readouterr().out == f"{id_of(text)} is revoked\n"
    assert listed(capsys)[id_of(text)]["state"] == "revoked"
    assert main(["keys", "rotate", id_of(text)]) == 1
    told = capsys.readouterr()
    assert (told.out, told.err) == (
        "",
        "error: only an active key can be rotated; this one is revoked: create another\n",
    )


@pytest.mark.parametrize("action", ["rotate", "revoke"])
def test_an_unknown_key_is_one_line(either, capsys, action):
    assert main(["keys", action, "0" * 12]) == 1
    assert capsys.readouterr().err == "error: there is no such key\n"


def test_taking_the_last_key_away_says_what_follows(stopped, capsys):
    one, other = (made(capsys, "create", "--name", name) for name in ("one", "other"))
    assert main(["keys", "revoke", id_of(one)]) == 0
    assert capsys.readouterr().err == ""
    assert main(["keys", "revoke", id_of(other)]) == 0
    assert "no key is left" in capsys.readouterr().err


def test_a_running_server_knows_a_new_key_at_once_and_a_revoked_one_no_more(running, capsys):
    text = made(capsys, "create", "--name", "me")
    assert (status(running, text), status(running, text[:-1])) == (200, 401)
    assert listed(capsys)[id_of(text)]["last_used_at"] is not None
    new = made(capsys, "rotate", id_of(text))
    assert (status(running, text), status(running, new)) == (200, 200)
    assert main(["keys", "revoke", id_of(text)]) == 0
    assert (status(running, text), status(running, new)) == (401, 401)
    log = running.log.read_text()
    assert not any(secret.rsplit("_", 1)[1] in log for secret in (text, new))


@pytest.mark.skipif(sys.platform != "linux", reason="limits of another process are set as Linux does")
def test_a_key_is_revoked_while_the_servers_disk_is_full_and_that_outlives_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("API_KEY", raising=False)
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "var"))
    with server_process(tmp_path, MODEL_ID="fake-engine:1", DRAIN_TIMEOUT="0") as server:
        texts = [made(capsys, "create", "--name", f"key {number}") for number in range(12)]
        # No file can grow beyond what the database's log has, which is more than the server's own log file.
        pid, full = server.process.pid, (tmp_path / "var" / "server" / "jobs.sqlite3-wal").stat().st_size
        assert server.log.stat().st_size < full / 2
        before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (full, before[1]))
        assert main(["keys", "revoke", id_of(texts[0])]) == 1
        told = capsys.readouterr()
        assert (told.out, told.err.count("\n")) == ("", 1)
        assert f"error: the key {id_of(texts[0])} could not be saved as revoked" in told.err
        assert (status(server, texts[0]), status(server, texts[1])) == (401, 200)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
        deadline = time.monotonic() + 10
        while "revoked keys are saved now" not in server.log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert main(["keys", "revoke", id_of(texts[0])]) == 0
    assert listed(capsys)[id_of(texts[0])]["state"] == "revoked"


def test_without_a_server_a_full_disk_leaves_the_key_as_it_was_and_says_so(stopped, monkeypatch, capsys):
    text = made(capsys, "create", "--name", "me")

    async def full(*_arguments: object) -> None:
        raise StoreUnavailableError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(JobStore, "put_key", full)
        assert main(["keys", "revoke", id_of(text)]) == 1
    told = capsys.readouterr().err
    assert "could not be saved as revoked (the disk is full)" in told
    assert told.endswith("if none runs, revoke it again\n")
    assert listed(capsys)[id_of(text)]["state"] == "active"


def test_when_a_key_was_used_outlives_the_server(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("API_KEY", raising=False)
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "var"))
    text = made(capsys, "create", "--name", "me")
    with server_process(tmp_path, MODEL_ID="fake-engine:1", DRAIN_TIMEOUT="0") as running:
        assert status(running, text) == 200
    assert listed(capsys)[id_of(text)]["last_used_at"] is not None


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["create"], ["create", "--name", ""], ["create", "--name", "a\nb"], ["create", "--name", "x" * 65],
        ["create", "--name", "x", "--scope", "root"], ["create", "--name", "x", "--expires-days", "0"],
        ["create", "--name", "x", "--expires-days", "nan"], ["rotate", "../x"], ["revoke"],
        ["rotate", "0" * 12, "--grace-hours", "-1"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_wrong_command_line_is_exit_code_2(stopped, arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["keys", *arguments])
    assert ended.value.code == 2
    assert "usage: python -m server keys" in capsys.readouterr().err
    assert not stopped.exists()


def test_the_doctor_tells_who_is_asked_for_a_key(stopped, capsys):
    def found(host: str = "127.0.0.1", *, has_environment_key: bool = False) -> tuple[str, str]:
        [finding] = look_at_keys(host, stopped / "server", has_environment_key=has_environment_key)
        return finding.level, finding.found

    assert found() == ("ok", "no API keys: only requests from this machine are accepted")
    assert found("0.0.0.0") == ("FAIL", "HOST=0.0.0.0 is open to other machines, and there are no API keys")
    assert found("0.0.0.0", has_environment_key=True)[1] == "callers need an API key: API_KEY is set, none in the store"
    assert not stopped.exists()
    text = made(capsys, "create", "--name", "me")
    for _ in range(2):  # looking changes nothing
        assert found("0.0.0.0") == ("ok", "callers need an API key: 1 in the store")
    main(["keys", "revoke", id_of(text)])
    assert found("0.0.0.0")[0] == "FAIL"


def test_the_doctor_asks_a_running_server(running, capsys):
    made(capsys, "create", "--name", "me")
    num_active = sum(key["state"] == "active" for key in listed(capsys).values())
    [finding] = look_at_keys("127.0.0.1", running.log.parent / "var" / "server", has_environment_key=False)
    assert (finding.level, finding.found) == ("ok", f"callers need an API key: {num_active} in the store")
