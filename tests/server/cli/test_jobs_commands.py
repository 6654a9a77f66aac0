"""`python -m server jobs ...`: the same words for a running server and for a store that nobody has open."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from engine.params import GenerationParams
from server.cli.arguments import build_parser, main
from server.cli.jobs import newest_jobs
from server.cli.server_client import any_server
from server.settings_file import load_settings
from server.store.job_store import JobStore
from server.store.record import Failure, NewJob, Outcome
from tests.processes import ServerProcess, server_process

SECRET = "a cat that nobody should read about"
LONG_AGO = {"KEEP_JOBS_DAYS": "100000"}
RED = "\x1b[31mred\n"


def new(number: int, *, user: str | None = None, key_id: str = "local") -> NewJob:
    return NewJob(
        id=f"{number:016x}",
        key_id=key_id,
        user=user,
        params=GenerationParams(prompt=SECRET, seed=7, num_inference_steps=4, height=64, width=128, num_images=number),
        output_format="png",
        is_bound=False,
        idempotency_key=None,
        request_digest=bytes(32),
        created_at=1_700_000_000.0 + number,
    )


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """DATA_DIR of a stopped server: job 1 is queued, job 2 is dead, job 3 was running when its server was killed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))

    asyncio.run(fill(tmp_path / "data" / "server", new(1, user="ann"), new(2, key_id="other"), new(3, user=RED)))
    return tmp_path / "data" / "server"


async def fill(folder: Path, *jobs: NewJob) -> None:
    """Keep jobs: the first is queued, job 2 is dead, job 3 was running when its server was killed."""
    store = await JobStore.open(folder)
    for job in jobs:
        await store.add(job)
        if job.id != f"{1:016x}":
            assert await store.begin(job.id, 1_700_000_010.0) == 1
        if job.id == f"{2:016x}":
            failure = Failure(code="engine_lost", detail="the engine failed 3 times")
            await store.finish(job.id, 1, Outcome(status="dead", finished_at=1_700_000_020.0, failure=failure))
    await store.close()


def lines_of(capsys) -> list[list[str]]:
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_a_stopped_servers_jobs_are_listed_newest_first(data, capsys):
    assert main(["jobs", "list"]) == 0
    head, *rows = lines_of(capsys)
    assert head == ["ID", "STATUS", "STEP", "CREATED", "PICTURES", "UNITS", "USER", "WHY"]
    assert [row[:2] for row in rows] == [[f"{3:016x}", "queued"], [f"{2:016x}", "dead"], [f"{1:016x}", "queued"]]
    assert rows[2][2:5] == ["0/4", "2023-11-14T22:13:21.000Z", "128x64"]
    assert rows[1][4:] == ["2", "x", "128x64", "0.01", "the", "engine", "failed", "3", "times"]


def test_what_a_caller_wrote_cannot_steer_the_terminal(data, capsys):
    assert main(["jobs", "list", "--status", "queued"]) == 0
    told = capsys.readouterr().out
    assert r"\x1b[31mred\n" in told
    assert "\x1b" not in told
    assert len(told.splitlines()) == 3


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        (["--status", "queued"], [3, 1]),
        (["--status", "done", "--status", "dead"], [2]),
        (["--user", "ann"], [1]),
        (["--limit", "1"], [3]),
        (["--status", "done"], []),
    ],
)
def test_a_list_can_be_narrowed(data, capsys, options, numbers):
    assert main(["jobs", "list", "--json", *options]) == 0
    assert [int(job["id"], 16) for job in json.loads(capsys.readouterr().out)] == numbers


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_a_prompt_is_shown_only_where_it_is_asked_for(data, capsys, form):
    main(["jobs", "list", *form])
    main(["jobs", "show", f"{1:016x}", *form])
    assert SECRET not in capsys.readouterr().out
    main(["jobs", "show", f"{1:016x}", "--prompt", *form])
    assert SECRET in capsys.readouterr().out


def test_looking_deletes_nothing_and_needs_no_model(data, monkeypatch, capsys):
    """
    Jobs of 2023, beyond what is kept: they go when the server starts, and not because an operator has looked at them.
    """
    monkeypatch.setenv("MODEL_ID", "models/nowhere")
    for _ in range(2):
        assert main(["jobs", "list"]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 4
    assert main(["jobs", "show", f"{2:016x}"]) == 0
    assert "models/nowhere" in capsys.readouterr().out


def test_an_option_that_is_a_setting_is_said_to_be_one(capsys):
    for option in (["--port", "9000"], ["--port=9000"]):
        with pytest.raises(SystemExit) as ended:
            main(["serve", *option])
        assert ended.value.code == 2
        assert "(PORT is a setting: PORT=9000 in the environment or in .env)" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["serve", "--colour", "red"])
    assert "is a setting" not in capsys.readouterr().err


def test_every_command_names_a_function_that_is_there():
    """
    They are imported by name, when they run.
    """

    def commands(parser):
        for action in parser._actions:
            for part in (getattr(action, "choices", None) or {}).values() if action.nargs == "A..." else ():
                yield from commands(part)
        if (run := parser.get_default("run")) is not None:
            yield run

    found = list(commands(build_parser()))
    assert len(found) == 15
    for name in found:
        module, _, function = name.partition(":")
        assert callable(getattr(importlib.import_module(module), function)), name


def test_a_job_is_shown_with_everything_that_is_known(data, capsys):
    assert main(["jobs", "show", f"{2:016x}"]) == 0
    told = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert told["status"] == "dead"
    assert told["error.detail"] == "the engine failed 3 times"
    assert told["params.seed"] == "7"
    assert told["started_at"] == "2023-11-14T22:13:30.000Z"


def status_of(capsys, number: int) -> str:
    assert main(["jobs", "show", f"{number:016x}", "--json"]) == 0
    return json.loads(capsys.readouterr().out)["status"]


def test_a_dead_job_is_queued_again_and_only_a_dead_one(data, capsys):
    assert main(["jobs", "requeue", f"{2:016x}"]) == 0
    assert capsys.readouterr().out == f"{2:016x} is queued again\n"
    assert status_of(capsys, 2) == "queued"
    assert main(["jobs", "requeue", f"{2:016x}"]) == 1
    assert capsys.readouterr().err == "error: only a dead job can be requeued; this one is queued\n"


@pytest.mark.parametrize("number", [1, 3], ids=["queued", "running"])
def test_a_job_is_cancelled_and_once_more_does_no_harm(data, capsys, number):
    for _ in range(2):
        assert main(["jobs", "cancel", f"{number:016x}"]) == 0
        assert capsys.readouterr().out == f"{number:016x} is cancelled\n"
    assert status_of(capsys, number) == "cancelled"


def test_a_job_that_has_ended_is_not_cancelled(data, capsys):
    assert main(["jobs", "cancel", f"{2:016x}"]) == 1
    assert capsys.readouterr().err == "error: the job has ended already: it is dead\n"
    assert status_of(capsys, 2) == "dead"


@pytest.mark.parametrize("action", ["show", "cancel", "requeue"])
def test_an_unknown_job_is_one_line(data, capsys, action):
    assert main(["jobs", action, "f" * 16]) == 1
    assert capsys.readouterr().err == f"error: there is no job {'f' * 16}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["jobs"],
        ["jobs", "show"],
        ["jobs", "show", "../x"],
        ["jobs", "list", "--limit", "0"],
        ["jobs", "list", "--status", "x"],
    ],
)
def test_a_wrong_command_line_is_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: python -m server" in capsys.readouterr().err


def test_the_help_documents_the_exit_codes(capsys):
    for arguments in (["--help"], ["jobs", "--help"]):
        with pytest.raises(SystemExit):
            main(arguments)
        assert "3    the server cannot be reached" in capsys.readouterr().out


def test_a_store_that_another_process_has_open_is_exit_code_3_and_names_the_process(data, capsys):
    async def ask() -> int:
        store = await JobStore.open(data)
        try:
            return await asyncio.to_thread(main, ["jobs", "list"])
        finally:
            await store.close()

    assert asyncio.run(ask()) == 3
    told = capsys.readouterr().err
    assert "has the job store open and does not listen at" in told
    assert told.startswith(f"error: process {os.getpid()} on {socket.gethostname()} ")


def test_a_folder_without_a_server_is_exit_code_3_and_nothing_is_made(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "nowhere"))
    assert main(["jobs", "list"]) == 3
    assert "is DATA_DIR correct?" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_setting_is_one_line(data, monkeypatch, capsys):
    monkeypatch.setenv("PORT", "http")
    assert main(["jobs", "list"]) == 1
    assert capsys.readouterr().err == "error: PORT must be an integer, not 'http'\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose jobs take 4 s, and which has found a dead one, job 2."""
    folder = tmp_path_factory.mktemp("running")
    data = folder / "data"
    asyncio.run(fill(data / "server", new(2)))
    with server_process(
        folder, MODEL_ID="fake-engine:1000", DATA_DIR=str(data), DRAIN_TIMEOUT="0", **LONG_AGO
    ) as running:
        running.wait_until_ready(30)
        yield running


@pytest.fixture
def running(server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> ServerProcess:
    """The same, and the command line speaks to it."""
    monkeypatch.chdir(server.log.parent)
    monkeypatch.setenv("DATA_DIR", str(server.log.parent / "data"))
    return server


def submit(server: ServerProcess, **wishes: object) -> str:
    answer = httpx2.post(f"{server.url}/v1/jobs", json={"prompt": SECRET, "num_inference_steps": 4, **wishes})
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def test_a_running_servers_jobs_are_listed_shown_and_cancelled(running, capsys):
    job_id = submit(running, user="bob")
    assert main(["jobs", "list", "--user", "bob"]) == 0
    assert job_id in capsys.readouterr().out
    assert main(["jobs", "show", job_id]) == 0
    told = capsys.readouterr().out
    assert ["user", "bob"] in [line.split() for line in told.splitlines()]
    assert SECRET not in told
    assert main(["jobs", "cancel", job_id]) == 0
    assert capsys.readouterr().out == f"{job_id} is cancelled\n"
    assert httpx2.get(f"{running.url}/v1/jobs/{job_id}").json()["status"] == "cancelled"
    assert main(["jobs", "requeue", job_id]) == 1
    assert capsys.readouterr().err == "error: only a dead job can be requeued; this one is cancelled\n"


def test_a_long_list_is_fetched_page_by_page(running):
    ids = [submit(running, user="many") for _ in range(4)]
    with any_server(load_settings()) as server:
        found = newest_jobs(server, statuses=["queued", "running"], user="many", limit=3, page=2)
    assert [job["id"] for job in found] == ids[:0:-1]
    for job_id in ids:
        assert main(["jobs", "cancel", job_id]) == 0


def test_a_dead_job_of_a_running_server_is_tried_again(running, capsys):
    dead = f"{2:016x}"
    assert main(["jobs", "requeue", dead]) == 0
    assert capsys.readouterr().out == f"{dead} is queued again\n"
    assert httpx2.get(f"{running.url}/v1/jobs/{dead}").json()["status"] in {"queued", "running"}
    assert main(["jobs", "cancel", dead]) == 0


def test_an_unknown_job_of_a_running_server_is_one_line(running, capsys):
    assert main(["jobs", "show", "f" * 16]) == 1
    assert capsys.readouterr().err == f"error: there is no job {'f' * 16}\n"


def test_only_the_socket_makes_an_operator(running):
    job_id = submit(running)
    assert httpx2.post(f"{running.url}/v1/jobs/{job_id}/requeue").status_code == 403
    assert main(["jobs", "cancel", job_id]) == 0


def test_the_doctor_finds_a_running_server_well(running, capsys):
    main(["doctor", "--json"])
    found = {finding["check"]: finding["found"] for finding in json.loads(capsys.readouterr().out)["findings"]}
    assert found["server"] == "runs, and is healthy"
    assert found["store"].startswith(f"process {running.process.pid} ")
