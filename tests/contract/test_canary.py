"""Marked prompts, users and keys go through every route and error; nobody but their owner ever reads them again.

Logs, metrics, problem documents, file names and every table but that of the jobs must not hold them.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import signal
import sqlite3
import time
from pathlib import Path

from engine.params import GenerationParams
from server.access.key_ring import ENVIRONMENT_KEY
from server.schemas.generation import GenerateRequest
from server.store.database import DATABASE_NAME
from server.store.job_store import JobStore
from server.store.record import Failure, NewJob, Outcome
from tests.chaos.gateway import Gateway, gateway, until
from tests.client.contract import codes
from tests.contract.broken_servers import CLUMSY_SERVER, NO_WEIGHTS, TALKATIVE_ENGINE
from tests.contract.marked_caller import KEY, NEGATIVE, PROMPT, QUICK, SIMILAR_KEY, USER, Caller
from tests.contract.marked_requests import (
    ask_as_other_programs_do,
    ask_everything,
    ask_what_is_no_request,
    ask_wrongly,
    drain,
    fill_the_disk,
    fill_the_queue,
    find_mistakes,
    lose_engines,
    lose_patience,
    operate,
    present_wrong_keys,
    use_made_keys,
)
from tests.processes import REPOSITORY

MARKS = ("tangerine", "walrus", "indigo", "pelican", "marmalade-badger")
"""What nobody may find again. In the database's table of usage a user may be."""

USER_MARK = "ocelot"

TOLD_BY_A_SERVER = frozenset({
    "cancelled", "client_closed_request", "content_too_large", "draining", "foreign_page",
    "engine_class_not_found", "headers_too_large",
    "idempotency_key_reused", "insufficient_scope", "internal_error", "invalid_idempotency_key", "invalid_request",
    "job_dead", "job_not_dead", "job_not_done", "job_not_found", "key_not_active", "key_not_found", "malformed_body",
    "malformed_request", "method_not_allowed", "model_not_found", "not_acceptable", "not_found", "operator_only",
    "queue_full", "request_timeout", "request_too_slow", "result_expired", "store_unavailable", "target_too_long",
    "unauthorized",
    "unsupported_image", "unsupported_media_type", "upload_too_large",
})  # fmt: skip

TOLD_WITHOUT_A_MODEL = frozenset({"engine_failed", "job_failed", "rate_limited", "too_many_connections"})

TOLD_OF_AN_ENGINE = frozenset({"does_not_fit", "engine_error", "invalid_request", "not_finite"})
"""Every code of a problem document, by the test that provokes it."""

NEVER_TOLD = {
    "input_expired": "a dead job is requeued when its pictures are gone: tests/server/store/test_input_files.py",
    "too_many_uploads": "it takes 512 MiB: tests/server/routes/test_uploads.py",
    "engine_lost": "whoever waits is not told: the job is tried again, and in the end it is `job_dead`",
    "http_error": "of a status that no part of the app knows; there would be a mistake to mend",
}


def test_every_code_is_provoked_below_or_there_is_a_reason_why_not():
    provoked = TOLD_BY_A_SERVER | TOLD_WITHOUT_A_MODEL | TOLD_OF_AN_ENGINE
    assert provoked | NEVER_TOLD.keys() == codes().keys() | {"http_error"}
    assert not provoked & NEVER_TOLD.keys()


def test_nobody_but_its_owner_ever_reads_a_prompt_or_a_key_again(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(CLUMSY_SERVER)
    settings = {"API_KEY": KEY, "LOG_LEVEL": "debug", "WATCHDOG_MIN": "0.5", "REQUEST_TIMEOUT": "3"}
    settings |= {"PYTHONPATH": f"{tmp_path}:{REPOSITORY}", "MAX_QUEUED_REQUESTS": "8", "MODEL_ID": "fake-engine:10"}
    settings |= {"LIMIT_REQUESTS_PER_MINUTE": "0"}  # all are asked in a minute
    with gateway(tmp_path, pipes_log=True, **settings) as server:
        caller = Caller(server=server)
        dawdling = caller.begin(_DAWDLING)
        ask_everything(caller)
        ask_wrongly(caller)
        ask_as_other_programs_do(caller)
        ask_what_is_no_request(caller)
        present_wrong_keys(caller)
        use_made_keys(caller, tmp_path)
        operate(caller)
        lose_engines(caller)
        lose_patience(caller)
        fill_the_queue(caller)
        find_mistakes(caller, tmp_path)
        fill_the_disk(caller)
        metrics = caller.ask("GET", "/metrics").text
        assert caller.listen(dawdling) == 408
        drain(caller)
    log = server.log.read_text()
    assert caller.codes | _codes(log) == TOLD_BY_A_SERVER
    assert 'semantic_bit_http_requests_total{method="POST",route="/generate",status="200"}' in metrics
    _check(tmp_path, caller, log, metrics)


def test_a_server_whose_model_cannot_be_served_keeps_them_to_itself_too(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(NO_WEIGHTS)
    asyncio.run(_keep_a_job_that_failed_for_a_reason_of_tomorrow(tmp_path / "data" / "server"))
    settings = {"API_KEY": KEY, "LOG_LEVEL": "debug", "PYTHONPATH": f"{tmp_path}:{REPOSITORY}"}
    settings |= {"MAX_CONNECTIONS": "2", "LIMIT_REQUESTS_PER_MINUTE": "20"}
    with gateway(tmp_path, command=None, waits=False, **settings) as server:
        caller = Caller(server=server)
        assert caller.post(QUICK, "/generate", headers={"Idempotency-Key": "of-tomorrow"}).status_code == 500
        waiting = caller.begin(_REQUEST)
        until(lambda: caller.operate("GET", "/v1/queue")["waiting"] == 1, 10, "in hand")
        assert caller.listen(caller.begin(_REQUEST)) == 503
        assert caller.codes == {"job_failed", "too_many_connections"}
        (tmp_path / "looked-for").touch()
        assert caller.listen(waiting) == 503
        assert [caller.post(QUICK, path).status_code for path in ("/generate", "/v1/jobs")] == [503, 503]
        metrics = caller.ask("GET", "/metrics").text
        wrong = {"Authorization": f"Bearer {SIMILAR_KEY}"}
        assert caller.post(QUICK, headers=wrong).status_code == 401
        assert [caller.post(QUICK).status_code for _ in range(20)][-1] == 429
        _end(server)
    assert caller.codes == TOLD_WITHOUT_A_MODEL | {"unauthorized"}
    _check(tmp_path, caller, server.log.read_text(), metrics)


def test_an_engine_that_fails_with_the_prompt_in_its_mouth_keeps_it_to_itself(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(TALKATIVE_ENGINE)
    settings = {"API_KEY": KEY, "LOG_LEVEL": "debug", "PYTHONPATH": f"{tmp_path}:{REPOSITORY}"}
    with gateway(tmp_path, MODEL_ID="fake", waits=False, **settings) as server:
        server.wait_until_ready(90)
        caller = Caller(server=server)
        for prompt in (PROMPT, f"{PROMPT} in a fog", f"{PROMPT} on a large canvas"):
            for path in ("/generate", "/v1/jobs"):
                caller.post({**QUICK, "prompt": prompt}, path)
        for job in caller.ask("GET", "/v1/jobs").json()["jobs"]:
            assert caller.ended(job["id"])["status"] == "failed"
        caller.post({**QUICK, "sampler": KEY})
        metrics = caller.ask("GET", "/metrics").text
        _end(server)
    log = server.log.read_text()
    assert caller.codes == TOLD_OF_AN_ENGINE
    [failure, *_] = [line for line in _lines(log) if line["event"] == "failed while reading the prompt"]
    assert failure["job_id"]
    assert "ValueError: (message left out: it could contain a prompt)" in failure["exception"]
    _check(tmp_path, caller, log, metrics)


def test_prompts_are_logged_where_the_operator_asks_for_it_but_never_a_key(tmp_path):
    with gateway(tmp_path, API_KEY=KEY, LOG_PROMPTS="true") as server:
        Caller(server=server).post(QUICK, "/generate")
        _end(server)
    log = server.log.read_text()
    [drawn] = [line for line in _lines(log) if line.get("path") == "/generate"]
    assert (drawn["prompt"], drawn["negative_prompt"]) == (PROMPT, NEGATIVE)
    assert KEY not in log


async def _keep_a_job_that_failed_for_a_reason_of_tomorrow(folder: Path) -> None:
    """As a later release would have done, before it was taken back."""
    wish = GenerateRequest(**QUICK)
    record = {"id": "f" * 16, "key_id": ENVIRONMENT_KEY, "user": USER, "idempotency_key": "of-tomorrow"}
    params = GenerationParams(prompt=PROMPT, negative_prompt=NEGATIVE, seed=0)
    digest = hashlib.sha256(wish.model_dump_json(exclude_none=True).encode()).digest()
    failure = Failure(code="of_tomorrow", detail="the reason is not known yet")
    store = await JobStore.open(folder)
    await store.add(
        NewJob(
            **record, params=params, output_format="png", is_bound=False, request_digest=digest, created_at=time.time()
        )
    )
    await store.fail_queued(record["id"], Outcome(status="failed", finished_at=time.time(), failure=failure))
    await store.close()


# --- what must not hold it --------------------------------------------------------------------------------------------


def _check(folder: Path, caller: Caller, log: str, metrics: str) -> None:
    jobs, others = _tables(folder / "data" / "server")
    assert all(mark in jobs for mark in (PROMPT, NEGATIVE, USER)), "the canary does not sing"
    assert KEY not in jobs
    assert len(_lines(log)) > 10
    names = "\n".join(str(path.relative_to(folder)) for path in folder.rglob("*"))
    for mark in (*MARKS, *caller.secrets, USER_MARK):
        places = {"log": log, "metrics": metrics, "file names": names}
        for place, text in places.items():
            assert mark not in text, f"{mark!r} is in the {place}: {_around(text, mark)}"
    for mark in (*MARKS, *caller.secrets):
        assert mark not in others, _around(others, mark)
        for problem in caller.problems:
            assert mark not in problem, problem


def _tables(folder: Path) -> tuple[str, str]:
    """Every row of the jobs, and every row of every other table."""
    with contextlib.closing(sqlite3.connect(folder / DATABASE_NAME)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = {name: [repr(row) for row in connection.execute(f"SELECT * FROM {name}")] for name in names}
    return "\n".join(rows.pop("jobs")), "\n".join(row for table in rows.values() for row in table)


def _lines(log: str) -> list[dict]:
    return [json.loads(line) for line in log.splitlines() if line.startswith("{")]


def _codes(log: str) -> set[str]:
    return {line["code"] for line in _lines(log) if "code" in line}


def _around(text: str, mark: str) -> str:
    at = text.index(mark)
    return text[max(0, at - 300) : at + 100]


def _end(server: Gateway) -> None:
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(20) == 0


_HEAD = (
    "POST /generate HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/json\r\n"
    f"Authorization: Bearer {KEY}\r\n"
).encode()

_REQUEST = _HEAD + b"Content-Length: %d\r\n\r\n" % len(json.dumps(QUICK)) + json.dumps(QUICK).encode()

_DAWDLING = _HEAD + b"Content-Length: 1000\r\n\r\n" + json.dumps(QUICK).encode()
"""Announces more than it says."""
