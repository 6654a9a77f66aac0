"""Marked prompts, users and keys go through every route and error; nobody but their owner ever reads them again.

Logs, metrics, problem documents, file names and every table but that of the jobs must not hold them.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import sqlite3
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from server.config import Settings
from server.executors.fake import FakeExecutor
from server.jobs.database import DATABASE_NAME
from server.main import create_app
from tests.chaos.gateway import Gateway, gateway, until
from tests.processes import REPOSITORY

PROMPT = "tangerine walrus"
NEGATIVE = "indigo pelican"
USER = "ocelot-of-vienna"
KEY = "marmalade-badger-" + "x7Q9" * 8
"""What `API_KEY` is set to."""
SIMILAR_KEY = "marmalade-badger-" + "y8R0" * 8
MARKS = ("tangerine", "walrus", "indigo", "pelican", "marmalade-badger")
"""What nobody may find again. In the database's table of usage a user may be."""
USER_MARK = "ocelot"

WISH = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "user": USER, "height": 64, "width": 64}
QUICK = {**WISH, "num_inference_steps": 2}

DOCUMENT = create_app(Settings(_env_file=None, model_id="fake"), executor=FakeExecutor()).openapi()
ROUTES = [(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods]


@dataclass(kw_only=True)
class Caller:
    """Whoever sends marked things; keeps what must not hold them."""

    server: Gateway
    problems: list[str] = field(default_factory=list)
    codes: set[str] = field(default_factory=set)
    secrets: list[str] = field(default_factory=list)
    """Of API keys that were made meanwhile."""

    def ask(self, method: str, path: str, **request) -> httpx2.Response:
        request["headers"] = {"Authorization": f"Bearer {KEY}", **request.get("headers", {})}
        answer = self.server.client.request(method, self.server.url + path, **request)
        if answer.status_code >= 400:
            self.problems.append(f"{answer.text}\n{answer.headers}")
            self.codes.add(answer.json()["code"])
        return answer

    def post(self, wish: object, path: str = "/v1/jobs", **request) -> httpx2.Response:
        return self.ask("POST", path, json=wish, **request)

    def ended(self, job_id: str, timeout_s: float = 20) -> dict:
        job = until(
            lambda: (job := self.ask("GET", f"/v1/jobs/{job_id}").json())["finished_at"] and job, timeout_s, "end"
        )
        if job["error"]:
            self.problems.append(json.dumps(job["error"]))
            self.codes.add(job["error"]["code"])
        return job


def test_nobody_but_its_owner_ever_reads_a_prompt_or_a_key_again(tmp_path):
    settings = {"API_KEY": KEY, "LOG_LEVEL": "debug", "WATCHDOG_MIN": "0.5", "REQUEST_TIMEOUT": "3"}
    with gateway(tmp_path, pipes_log=True, MODEL_ID="fake-engine:10", **settings) as server:
        caller = Caller(server=server)
        _ask_everything(caller)
        _ask_wrongly(caller)
        _present_wrong_keys(caller)
        _use_made_keys(caller, tmp_path)
        _lose_engines(caller)
        _lose_patience(caller)
        _fill_the_disk(caller)
        metrics = caller.ask("GET", "/metrics").text
        _end(server)
    assert caller.codes >= {
        "invalid_request", "malformed_body", "unsupported_media_type", "not_found", "method_not_allowed",
        "content_too_large", "job_not_found", "not_acceptable", "unauthorized", "job_dead", "job_not_dead",
        "request_timeout", "idempotency_key_reused", "store_unavailable",
    }  # fmt: skip
    assert 'semantic_bit_http_requests_total{method="POST",route="/generate",status="200"}' in metrics
    _check(tmp_path, caller, server.log.read_text(), metrics)


def test_an_engine_that_fails_with_the_prompt_in_its_mouth_keeps_it_to_itself(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(_TALKATIVE_ENGINE)
    settings = {"API_KEY": KEY, "LOG_LEVEL": "debug", "PYTHONPATH": f"{tmp_path}:{REPOSITORY}"}
    with gateway(tmp_path, MODEL_ID="fake", waits=False, **settings) as server:
        server.wait_until_ready(90)
        caller = Caller(server=server)
        for path in ("/generate", "/v1/jobs"):
            caller.post(QUICK, path)
        for job in caller.ask("GET", "/v1/jobs").json()["jobs"]:
            caller.ended(job["id"])
        caller.post({**QUICK, "sampler": KEY})
        metrics = caller.ask("GET", "/metrics").text
        _end(server)
    log = server.log.read_text()
    assert caller.codes == {"engine_error", "invalid_request"}
    [failure, *_] = [line for line in _lines(log) if line["event"] == "failed while reading the prompt"]
    assert failure["job_id"]
    assert "ValueError: (no message: it could hold a prompt)" in failure["exception"]
    _check(tmp_path, caller, log, metrics)


def test_prompts_are_logged_where_the_operator_asks_for_it_but_never_a_key(tmp_path):
    with gateway(tmp_path, API_KEY=KEY, LOG_PROMPTS="true") as server:
        Caller(server=server).post(QUICK, "/generate")
        _end(server)
    log = server.log.read_text()
    [drawn] = [line for line in _lines(log) if line.get("path") == "/generate"]
    assert (drawn["prompt"], drawn["negative_prompt"]) == (PROMPT, NEGATIVE)
    assert KEY not in log


# --- what is asked ----------------------------------------------------------------------------------------------------


def _ask_everything(caller: Caller) -> None:
    """Every route as it is meant, and every route with a key and a prompt where an id or a value belongs."""
    assert caller.post(QUICK, "/generate").status_code == 200
    job = caller.post(QUICK, headers={"X-API-Key": KEY, "Idempotency-Key": "once"}).json()
    assert caller.ended(job["id"])["status"] == "done"
    caller.ask("GET", f"/v1/jobs/{job['id']}/images/0")
    caller.ask("GET", f"/v1/jobs/{job['id']}/events")
    caller.ask("GET", "/v1/jobs", params={"user": USER})
    caller.post({**WISH, "prompt": f"{PROMPT} again"}, headers={"Idempotency-Key": "once"})
    caller.post(QUICK, f"/v1/jobs/{job['id']}/requeue")
    for method, path in ROUTES:
        for word in (KEY, PROMPT, "0123456789abcdef"):
            filled = re.sub(r"\{\w+\}", word, path)
            for params in ({}, {"api_key": KEY}, {"cursor": KEY}, {"status": KEY, "limit": KEY, "size": KEY}):
                _hear(caller, method, filled, params)
    _hear(caller, "GET", f"/nowhere/{KEY}/{PROMPT}", {})
    _hear(caller, "DELETE", "/generate", {"prompt": PROMPT})


def _hear(caller: Caller, method: str, path: str, params: dict[str, str]) -> None:
    caller.ask(method, path, params=params, json=QUICK if method == "POST" else None)


def _ask_wrongly(caller: Caller) -> None:
    wrong: list[object] = [
        {"prompt": PROMPT * 1000}, {"prompt": PROMPT + "\x00"}, {"prompt": [PROMPT]}, {"prompt": {PROMPT: PROMPT}},
        {"prompt": PROMPT, "negative_prompt": NEGATIVE * 1000}, {**QUICK, "negative_prompt": 7}, {"promt": PROMPT},
        {**QUICK, "text": NEGATIVE}, {**QUICK, PROMPT: 1}, {**QUICK, KEY: 1}, {**QUICK, "token": KEY}, PROMPT, [PROMPT],
        {**QUICK, "sampler": PROMPT + KEY}, {**QUICK, "width": PROMPT + KEY}, {**QUICK, "width": 63},
        {**QUICK, "user": USER + KEY * 2}, {**QUICK, "noise_schedule": KEY}, {**QUICK, "output_format": KEY},
    ]  # fmt: skip
    for path in ("/generate", "/v1/jobs"):
        for wish in wrong:
            assert caller.post(wish, path).status_code == 422, wish
        headers = {"Content-Type": "application/json"}
        caller.ask("POST", path, content=f'{{"prompt": "{PROMPT}", {NEGATIVE}', headers=headers)
        caller.ask("POST", path, content=f'{{"prompt": "{PROMPT} \xff"}}'.encode("latin-1"), headers=headers)
        caller.ask("POST", path, content=PROMPT.encode(), headers={"Content-Type": "text/plain"})
        caller.ask("POST", path, content=PROMPT.encode() * 2**17, headers=headers)
    caller.post(QUICK, "/generate", headers={"Accept": "text/html"})
    caller.post(QUICK, headers={"Idempotency-Key": f"{PROMPT} {KEY}"})


def _present_wrong_keys(caller: Caller) -> None:
    for key in (SIMILAR_KEY, KEY[:-1], "sb_live_marmalade-badger"):
        caller.ask("POST", "/generate", json=QUICK, headers={"Authorization": f"Bearer {key}"})
        caller.ask("GET", "/v1/queue", headers={"Authorization": f"Basic {key}", "X-API-Key": key})
        caller.ask("GET", f"/v1/jobs/{key}", params={"key": key}, headers={"Authorization": key})


def _use_made_keys(caller: Caller, folder: Path) -> None:
    """A key of the store, and the one that a rotation makes of it."""
    environment = {**os.environ, "DATA_DIR": str(folder / "data"), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "server", "keys"]

    def run(*arguments: str) -> str:
        asked = subprocess.run([*command, *arguments], cwd=folder, env=environment, capture_output=True, check=True)
        return asked.stdout.decode().strip()

    text = run("create", "--name", "canary")
    rotated = run("rotate", json.loads(run("list", "--json"))[0]["id"])
    for key in (text, rotated):
        caller.secrets.append(key.rpartition("_")[2])
        assert caller.post(QUICK, headers={"Authorization": f"Bearer {key}"}).status_code == 202
        caller.ask("GET", f"/v1/jobs/{key}", params={"key": key})
        caller.post({**QUICK, "user": key + USER, "negative_prompt": [key]}, "/generate")


def _lose_engines(caller: Caller) -> None:
    """A prompt that kills every engine it meets, and one that makes them hang until somebody cancels."""
    poison = caller.post({**QUICK, "prompt": f"{PROMPT} poison"}).json()["id"]
    assert caller.ended(poison, 40)["status"] == "dead"
    caller.server.wait_until_ready()
    hanging = caller.post({**QUICK, "prompt": f"{PROMPT} hang"}).json()["id"]
    until(lambda: caller.ask("GET", f"/v1/jobs/{hanging}").json()["attempt"] >= 2, 20, "a second attempt")
    caller.post({}, f"/v1/jobs/{hanging}/cancel")
    caller.server.wait_until_ready()


def _lose_patience(caller: Caller) -> None:
    """A caller that hangs up, and one for whom it takes too long."""
    slow = {**WISH, "num_inference_steps": 150, "num_images": 8, "sampler": "Heun"}
    with contextlib.suppress(httpx2.TimeoutException):
        caller.post(slow, "/generate", timeout=0.5)
    assert caller.post(slow, "/generate").status_code == 504
    caller.server.wait_until_ready()


def _fill_the_disk(caller: Caller) -> None:
    """No write of the server succeeds: what a full disk does. Its log goes through a pipe."""
    unlimited = resource.RLIM_INFINITY
    resource.prlimit(caller.server.process.pid, resource.RLIMIT_FSIZE, (0, unlimited))
    until(lambda: caller.post(QUICK).status_code == 503, 10, "refused")
    resource.prlimit(caller.server.process.pid, resource.RLIMIT_FSIZE, (unlimited, unlimited))
    until(caller.server.is_ready, 10, "ready again")


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


def _around(text: str, mark: str) -> str:
    at = text.index(mark)
    return text[max(0, at - 300) : at + 100]


def _end(server: Gateway) -> None:
    server.process.terminate()
    assert server.process.wait(20) == 0


_TALKATIVE_ENGINE = f"""
import sys

if "server.executors.engine_process" in sys.orig_argv:
    from engine.models.fake import FakeModel

    def cannot_read(self, prompt, read=FakeModel.encode_prompt):
        if {PROMPT!r} in prompt:
            raise ValueError("cannot read " + prompt)
        return read(self, prompt)

    FakeModel.encode_prompt = cannot_read
"""
