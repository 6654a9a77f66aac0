"""What a job has cost, who may ask, and the command line: /v1/usage, `python -m server usage`."""

from __future__ import annotations

import asyncio
import csv
import gc
import io
import json
import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import EngineError
from server.cli.arguments import main
from server.routes import usage as usage_route
from server.schemas.usage import UsageView
from server.store.job_store import JobStore
from server.store.price import price_of, written
from server.store.usage_table import Usage, UsageQuestion
from server.worker.fake_executor import FakeExecutor
from tests.processes import server_process
from tests.server.store.store_records import done, noon
from tests.server.store.stored_jobs import ended

KEY = "a key of forty characters or even a little more"

WISH = {"prompt": "a cat", "num_inference_steps": 4, "height": 64, "width": 64}
"""Costs 8 rows of 64x64 pixels."""

WORK_UNITS = 8 * 64 * 64 / (56 * 512 * 512)

RATE = Decimal("0.02")


# --- what a job has cost ----------------------------------------------------------------------------------------------


def ask(server, method: str, path: str, key: str | None = KEY, **options):
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return httpx2.request(method, server.url + path, headers=headers, timeout=10, **options)


def submitted(server, **wish) -> str:
    answer = ask(server, "POST", "/v1/jobs", json=WISH | wish)
    assert answer.status_code == 202, answer.text
    assert answer.json()["cost"] is None
    return answer.json()["id"]


def over(server, job_id: str) -> dict:
    with httpx2.stream(
        "GET", f"{server.url}/v1/jobs/{job_id}/events", headers={"X-API-Key": KEY}, timeout=10
    ) as answer:
        answer.read()
    return ask(server, "GET", f"/v1/jobs/{job_id}").json()


def usage(server, query: str = "", key: str = KEY) -> dict:
    answer = ask(server, "GET", f"/v1/usage?{query}", key)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_job_that_is_done_has_cost_the_engines_time_its_work_units_and_their_price(serve):
    server = serve(FakeExecutor(step_s=0.01), api_key=KEY, price_per_work_unit=RATE)
    job = over(server, submitted(server, num_images=2))
    assert job["status"] == "done"
    assert 0.04 <= job["cost"]["engine_s"] <= job["timings"]["denoise_s"]
    assert job["cost"]["work_units"] == pytest.approx(2 * WORK_UNITS, abs=1e-6)
    assert job["cost"]["price"] == "0.000089286"
    total = usage(server)["total"]
    assert total["jobs"] == {"done": 1, "failed": 0, "cancelled": 0, "dead": 0}
    assert (total["images"], total["price"]) == (2, "0.000089286")
    assert total["engine_s"] == pytest.approx(job["cost"]["engine_s"], abs=1e-3)


def test_a_job_that_is_cancelled_or_fails_is_not_charged_but_what_the_engine_spent_on_it_is_told(serve):
    server = serve(FakeExecutor(step_s=0.02), api_key=KEY, price_per_work_unit=RATE)
    job_id = submitted(server, num_inference_steps=100)
    with httpx2.stream(
        "GET", f"{server.url}/v1/jobs/{job_id}/events", headers={"X-API-Key": KEY}, timeout=10
    ) as answer:
        assert any('"step":4' in line for line in answer.iter_lines())
    cancelled = ask(server, "POST", f"/v1/jobs/{job_id}/cancel").json()
    assert cancelled["cost"]["engine_s"] >= 0.08
    assert (cancelled["cost"]["work_units"], cancelled["cost"]["price"]) == (0.0, "0")
    server.call(server.executor.fail_next, EngineError("it broke"))
    failed = over(server, submitted(server))
    assert failed["status"] == "failed"
    assert failed["cost"] == {"engine_s": 0.0, "work_units": 0.0, "price": "0"}
    total = usage(server)["total"]
    assert total["jobs"] == {"done": 0, "failed": 1, "cancelled": 1, "dead": 0}
    assert total["engine_s"] == pytest.approx(cancelled["cost"]["engine_s"], abs=1e-3)
    assert (total["images"], total["work_units"], total["price"]) == (0, 0.0, "0")


def test_what_a_lost_engine_had_spent_on_a_job_is_counted_too(serve):
    server = serve(FakeExecutor(step_s=0.02), api_key=KEY)
    job_id = submitted(server, num_inference_steps=20)
    while ask(server, "GET", f"/v1/jobs/{job_id}").json()["step"] < 10:
        pass
    server.call(server.executor.restart)
    job = over(server, job_id)
    assert (job["status"], job["attempt"]) == ("done", 2)
    assert job["cost"]["engine_s"] >= 0.02 * 30


def test_a_repeat_under_an_idempotency_key_costs_nothing(serve):
    server = serve(api_key=KEY, price_per_work_unit=1)
    for _ in range(3):
        answer = httpx2.post(
            f"{server.url}/generate", json=WISH, headers={"X-API-Key": KEY, "Idempotency-Key": "once"}, timeout=10
        )
        assert answer.status_code == 200
    assert usage(server)["total"]["jobs"]["done"] == 1


@given(st.floats(0, 2000), st.decimals(0, 1000, places=6))
def test_a_price_is_exact_to_a_billionth_and_written_without_an_exponent(work_units, rate):
    price = price_of(work_units, rate)
    assert abs(price - Decimal(work_units) * rate) <= Decimal("5e-10")
    assert re.fullmatch(r"\d+(\.\d*[1-9])?", written(price))
    assert Decimal(written(price)) == price


# --- asking -----------------------------------------------------------------------------------------------------------


async def filled(folder) -> None:
    store = await JobStore.open(folder)
    today = datetime.now(UTC).timestamp()
    await ended(store, done(today, price="1.5"), key_id="someone-else", user="=cmd|' /C calc'!A0")
    await ended(store, done(today - 86400), key_id="local", user="ada")
    await ended(store, done(noon("2026-01-01")), key_id="local")
    await store.close()


@pytest.fixture
def data(tmp_path, monkeypatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    asyncio.run(filled(tmp_path / "server"))
    return tmp_path


def test_a_caller_sees_its_own_usage_of_the_last_30_days(serve, data):
    server = serve(data_dir=data)
    answer = ask(server, "GET", "/v1/usage", key=None).json()
    today = datetime.now(UTC).date()
    assert (answer["from"], answer["to"]) == (str(today - timedelta(29)), str(today))
    assert answer["group_by"] == ["day"]
    assert [row["day"] for row in answer["rows"]] == [str(today - timedelta(1))]
    assert answer["total"]["jobs"]["done"] == 1
    older = ask(server, "GET", "/v1/usage?from=2026-01-01&to=2026-01-01&group_by=user", key=None).json()
    assert [(row["day"], row["user"], row["images"]) for row in older["rows"]] == [(None, None, 1)]
    others = ask(server, "GET", "/v1/usage?key_id=someone-else", key=None).json()
    assert others["total"]["jobs"]["done"] == 1, "the own one, not somebody else's"
    assert "someone-else" not in json.dumps(others)


def test_a_key_with_the_scope_admin_sees_every_keys_usage(serve, data):
    server = serve(data_dir=data, api_key=KEY)
    answer = usage(server, "group_by=key&group_by=user")
    assert [(row["key_id"], row["user"]) for row in answer["rows"]] == [
        ("local", "ada"),
        ("someone-else", "=cmd|' /C calc'!A0"),
    ]
    assert answer["total"]["price"] == "1.505"
    assert [row["key_id"] for row in usage(server, "group_by=key&key_id=local")["rows"]] == ["local"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("from=2026-02-02&to=2026-02-01", "from"),
        ("from=yesterday", "from"),
        ("to=2026-02-30", "to"),
        ("group_by=prompt", "group_by"),
        (f"user={'x' * 65}", "user"),
    ],
)
def test_a_question_that_cannot_be_answered_is_told_why(server, query, field):
    answer = ask(server, "GET", f"/v1/usage?{query}", key=None)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)


def test_the_first_days_there_are_can_be_asked_for(server):
    assert ask(server, "GET", "/v1/usage?to=0001-01-05", key=None).json()["from"] == "0001-01-01"


def test_more_rows_than_anybody_reads_are_refused_and_never_cut_in_silence(serve, data, monkeypatch):
    monkeypatch.setattr(usage_route, "_MOST_ROWS", 1)
    server = serve(data_dir=data, api_key=KEY)
    answer = ask(server, "GET", "/v1/usage?group_by=user")
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "group_by")
    assert usage(server, "group_by=user&user=ada")["total"]["images"] == 1


async def filled_with_users(folder, num_users: int) -> None:
    store = await JobStore.open(folder)
    today = datetime.now(UTC).date().isoformat()

    def fill(connection: sqlite3.Connection) -> None:
        connection.executemany(
            "INSERT INTO usage (day, key_id, user, done, failed, cancelled, dead, images, work_units, engine_s,"
            " price_nanos) VALUES (?, 'local', ?, 1, 0, 0, 0, 2, 0.5, 1.25, 10000001)",
            ((today, f"user {number:05}") for number in range(num_users)),
        )

    await store._thread.write(fill)
    await store.close()


def asked_while_it_beats(server, address):
    """The answer, the seconds that the event loop's thread worked for it, and the longest that the loop stood still."""
    gaps, is_over = [], threading.Event()

    async def beat() -> None:
        while not is_over.is_set():
            began = time.monotonic()
            await asyncio.sleep(0.01)
            gaps.append(time.monotonic() - began)

    beating = asyncio.run_coroutine_threadsafe(beat(), server.loop)
    began = server.call(time.thread_time)
    answer = ask(server, "GET", address, key=None)
    worked_s = server.call(time.thread_time) - began
    is_over.set()
    beating.result(5)
    return answer, worked_s, max(gaps)


def test_however_many_rows_are_told_the_server_goes_on_to_answer_others(serve, tmp_path, monkeypatch):
    """
    The time that the event loop's own thread works is counted: that does not depend on how busy the machine is.
    """
    monkeypatch.setattr(usage_route, "_MOST_ROWS", 10**6)
    asyncio.run(filled_with_users(tmp_path / "server", 40_000))
    server = serve(data_dir=tmp_path)
    ask(server, "GET", "/v1/usage?user=nobody", key=None)  # the first answer of a server makes ready for others
    today = datetime.now(UTC).date()
    question = UsageQuestion(first_day=today, last_day=today, group_by=("day", "user"))
    address = f"/v1/usage?from={today}&group_by=day&group_by=user"
    gc.freeze()  # looking through all that the tests have loaded would stop every thread for a quarter of a second
    for _ in range(3):  # the other tries tell what else the machine was doing
        answer, worked_s, longest_gap_s = asked_while_it_beats(server, address)
        if worked_s < 0.3 and longest_gap_s < 0.3:
            break
    gc.unfreeze()
    assert worked_s < 0.3, "0.06 s; building them takes ten times as much"
    assert longest_gap_s < 0.3, "0.02 s on a machine that has nothing else to do"
    assert answer.headers["content-type"] == "application/json"
    told = answer.json()
    assert (len(told["rows"]), told["total"]["images"]) == (40_000, 80_000)
    rows = [
        Usage(
            day=today, key_id=None, user=f"user {number:05}", done=1, failed=0, cancelled=0, dead=0, images=2,
            work_units=0.5, engine_s=1.25, price=Decimal("0.010000001"),
        )
        for number in range(40_000)
    ]  # fmt: skip
    assert told == UsageView.of(question, rows).model_dump(mode="json")


# --- the command line -------------------------------------------------------------------------------------------------


def test_the_command_line_tells_of_every_key_while_no_server_runs(data, capsys):
    assert main(["usage"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["DAY", "KEY_ID", "USER"]
    assert len(lines) == 4
    assert lines[-1].split()[0] == "total"
    assert lines[-1].split()[-1] == "1.505"
    assert len({len(line) for line in lines[1:]}) == 1, "numbers stand under each other, at the right"
    prices = [line.split()[-1] for line in lines[1:]]
    assert {len(price.partition(".")[2]) for price in prices} == {3}, prices
    assert main(["usage", "--from", "2026-01-01", "--by", "key", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(row["key_id"], row["jobs"]["done"]) for row in told["rows"]] == [("local", 2), ("someone-else", 1)]
    assert main(["usage", "--to", "2000-01-01"]) == 0
    assert "no usage on these days" in capsys.readouterr().err
    assert main(["usage", "--from", "2026-02-02", "--to", "2026-02-01"]) == 1


def test_csv_holds_every_row_and_nothing_that_a_spreadsheet_would_compute(data, capsys):
    assert main(["usage", "--from", "2026-01-01", "--csv"]) == 0
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [line["user"] for line in lines] == ["", "ada", "'=cmd|' /C calc'!A0"]
    assert [line["price"] for line in lines] == ["0.005", "0.005", "1.5"]
    assert sum(int(line["done"]) for line in lines) == 3


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "＝", "－", "−", " =", "\u3000+", "  @", "\xa0−"])
def test_no_cell_begins_with_what_begins_a_formula(data, capsys, start):
    async def fill() -> None:
        store = await JobStore.open(data / "server")
        await ended(store, done(datetime.now(UTC).timestamp()), user=f'{start}1+1",=2')
        await store.close()

    asyncio.run(fill())
    main(["usage", "--csv"])
    out = capsys.readouterr().out
    cells = [cell for line in csv.reader(io.StringIO(out, newline="")) for cell in line]
    assert f"'{start}1+1\",=2" in cells
    assert not [cell for cell in cells if cell.lstrip().startswith(("=", "+", "-", "@", "＝", "－", "−"))]
    # A separator of another spreadsheet's within a cell begins no cell of its own.
    quoted = io.StringIO()
    csv.writer(quoted, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(csv.reader(io.StringIO(out, newline="")))
    assert out == quoted.getvalue()


@pytest.mark.parametrize(
    "user", ["\x1b]0;owned\x07\x1b[31m", "a\r\nb", "\t=1+1", "\x9b2J", "\u202egnp.exe", "\u2028=1"]
)
def test_what_a_caller_chose_cannot_steer_the_terminal_that_csv_is_shown_on(data, capsys, user):
    async def fill() -> None:
        store = await JobStore.open(data / "server")
        await ended(store, done(datetime.now(UTC).timestamp()), user=user)
        await store.close()

    asyncio.run(fill())
    assert main(["usage", "--csv"]) == 0
    out = capsys.readouterr().out
    assert all(character.isprintable() for character in out.replace("\n", ""))
    assert out.count("\n") == 4, "a line a row, and the heads of the columns"
    users = [line["user"] for line in csv.DictReader(io.StringIO(out))]
    assert "".join(character if character.isprintable() else ascii(character)[1:-1] for character in user) in users


def test_a_running_server_is_asked_and_tells_what_its_store_would(tmp_path, monkeypatch, capsys):
    with server_process(tmp_path, MODEL_ID="fake-engine:1", PRICE_PER_WORK_UNIT="1000") as server:
        server.wait_until_ready()
        answer = httpx2.post(f"{server.url}/generate", json=WISH | {"user": "ada"}, timeout=20)
        assert answer.status_code == 200
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("DATA_DIR", str(tmp_path / "var"))
        assert main(["usage", "--user", "ada", "--csv"]) == 0
        asked = capsys.readouterr().out
        assert main(["usage", "--key", "nobody", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["rows"] == []
    assert main(["usage", "--user", "ada", "--csv"]) == 0
    assert capsys.readouterr().out == asked
    [line] = csv.DictReader(io.StringIO(asked))
    assert (line["key_id"], line["user"], line["done"], line["price"]) == ("local", "ada", "1", "2.232142857")
    assert float(line["engine_s"]) >= 0.004
