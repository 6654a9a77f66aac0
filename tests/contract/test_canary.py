"""Marked prompts, users and keys go through every route and error; nobody but their owner ever reads them again.

Logs, metrics, problem documents, file names and every table but that of the jobs must not hold them.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import http.client
import json
import os
import re
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from engine.params import GenerationParams
from server.access.connections import MAX_HEAD_BYTES, MAX_TARGET_BYTES
from server.access.key_ring import ENVIRONMENT_KEY
from server.access.operator_socket import connect_to, socket_path
from server.schemas.generation import GenerateRequest
from server.store.database import DATABASE_NAME
from server.store.job_store import JobStore
from server.store.record import Failure, NewJob, Outcome
from tests.chaos.gateway import Gateway, gateway, until
from tests.client.contract import codes
from tests.contract.every_route import code_of, new_app, routed
from tests.processes import REPOSITORY
from tests.server.uploads.picture_files import chunk, form_of, png

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

SLOW = {**WISH, "num_inference_steps": 150, "num_images": 8, "sampler": "Heun"}
"""300 calls of the model, all eight pictures of which the engine does not take at once."""

ROUTES = [tuple(label.replace("*", "GET").split(" ")) for label in sorted(routed(new_app()))]
"""Method and path; those that the OpenAPI document does not tell of, too."""

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
            self.hears(f"{answer.text}\n{answer.headers}", None)
            if method != "HEAD":
                self.codes.add(code_of(answer))
        return answer

    def post(self, wish: object, path: str = "/v1/jobs", **request) -> httpx2.Response:
        return self.ask("POST", path, json=wish, **request)

    def operate(self, method: str, path: str, wish: object = None) -> dict | bytes:
        """Ask as the operator's command line does."""
        connection = http.client.HTTPConnection("localhost")
        connection.sock = connect_to(socket_path(self.server.log.parent / "data" / "server"), 10)
        with contextlib.closing(connection):
            body = None if wish is None else json.dumps(wish)
            connection.request(method, path, body, {} if wish is None else {"Content-Type": "application/json"})
            answer = connection.getresponse()
            told = answer.read()
        if answer.status >= 400:
            self.hears(f"{told.decode()}\n{answer.getheaders()}", told)
        return json.loads(told) if "json" in answer.getheader("content-type") else told

    def begin(self, said: bytes) -> socket.socket:
        """A connection of its own, on which this was said."""
        connection = socket.create_connection(self.server.url.removeprefix("http://").split(":"), timeout=30)
        connection.sendall(said)
        return connection

    def listen(self, connection: socket.socket) -> int:
        """The status of the only answer on a connection, which closes it."""
        with connection, connection.makefile("rb") as answer:
            told = answer.read()
        self.hears(told.decode(), told.partition(b"\r\n\r\n")[2])
        return int(told.split()[1])

    def ended(self, job_id: str, timeout_s: float = 20) -> dict:
        job = until(
            lambda: (job := self.ask("GET", f"/v1/jobs/{job_id}").json())["finished_at"] and job, timeout_s, "end"
        )
        if job["error"]:
            self.hears(json.dumps(job["error"]), json.dumps(job["error"]))
        return job

    def hears(self, everything: str, document: str | bytes | None) -> None:
        """Was told of an error, in a problem document or in a job."""
        self.problems.append(everything)
        if document is not None:
            self.codes.add(json.loads(document)["code"])


def test_nobody_but_its_owner_ever_reads_a_prompt_or_a_key_again(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(_CLUMSY_SERVER)
    settings = {"API_KEY": KEY, "LOG_LEVEL": "debug", "WATCHDOG_MIN": "0.5", "REQUEST_TIMEOUT": "3"}
    settings |= {"PYTHONPATH": f"{tmp_path}:{REPOSITORY}", "MAX_QUEUED_REQUESTS": "8", "MODEL_ID": "fake-engine:10"}
    settings |= {"LIMIT_REQUESTS_PER_MINUTE": "0"}  # all are asked in a minute
    with gateway(tmp_path, pipes_log=True, **settings) as server:
        caller = Caller(server=server)
        dawdling = caller.begin(_DAWDLING)
        _ask_everything(caller)
        _ask_wrongly(caller)
        _ask_as_other_programs_do(caller)
        _ask_what_is_no_request(caller)
        _present_wrong_keys(caller)
        _use_made_keys(caller, tmp_path)
        _operate(caller)
        _lose_engines(caller)
        _lose_patience(caller)
        _fill_the_queue(caller)
        _find_mistakes(caller, tmp_path)
        _fill_the_disk(caller)
        metrics = caller.ask("GET", "/metrics").text
        assert caller.listen(dawdling) == 408
        _drain(caller)
    log = server.log.read_text()
    assert caller.codes | _codes(log) == TOLD_BY_A_SERVER
    assert 'semantic_bit_http_requests_total{method="POST",route="/generate",status="200"}' in metrics
    _check(tmp_path, caller, log, metrics)


def test_a_server_whose_model_cannot_be_served_keeps_them_to_itself_too(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(_NO_WEIGHTS)
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
    (tmp_path / "sitecustomize.py").write_text(_TALKATIVE_ENGINE)
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
                _ask_with(caller, method, filled, params)
    for path in (f"/nowhere/{KEY}/{PROMPT}", f"/static/{KEY}/{PROMPT}"):
        _ask_with(caller, "GET", path, {})
    _ask_with(caller, "DELETE", "/generate", {"prompt": PROMPT})


def _ask_with(caller: Caller, method: str, path: str, params: dict[str, str]) -> None:
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
        assert caller.post({**QUICK, "engine_class": "0" * 16}, path).status_code == 409
    _upload_wrongly(caller)
    headers = {"Content-Type": "application/json"}
    caller.ask("POST", "/v1/jobs/0123456789abcdef/requeue", content=PROMPT.encode() * 2**17, headers=headers)
    caller.post(QUICK, "/generate", headers={"Accept": "text/html"})
    caller.post(QUICK, headers={"Idempotency-Key": f"{PROMPT} {KEY}"})


def _ask_as_other_programs_do(caller: Caller) -> None:
    """Marks in the fields of other programs' requests, at each of their routes."""
    quick = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "steps": 1, "size": "64x64", "width": 64, "height": 64}
    wishes: list[dict] = [
        {**quick, "auth": f"user:{KEY}", "url": f"http://{KEY}", "user": USER}, {**quick, "sampler_name": KEY},
        {**quick, "prompt": f"{PROMPT} <lora:{KEY}:1>"}, {**quick, "script_name": KEY}, {**quick, "styles": [PROMPT]},
        {**quick, "alwayson_scripts": {KEY: {"args": [True]}, PROMPT: [1]}}, {**quick, "infotext": PROMPT},
        {**quick, "override_settings": {"sd_model_checkpoint": KEY, PROMPT: KEY}}, {**quick, KEY: PROMPT},
        {**quick, "model": KEY}, {**quick, "steps": KEY}, {**quick, "init_images": [PROMPT]}, {**quick, "image": KEY},
        {"inputs": PROMPT, "parameters": {KEY: 1}}, {"inputs": [PROMPT]},
        {"inputs": KEY, "parameters": {"prompt": NEGATIVE}},
        {"sd_model_checkpoint": KEY}, {"samples_format": PROMPT}, {"id_task": KEY}, {"images": [{"image_url": KEY}]},
    ]  # fmt: skip
    app = new_app()
    paths = [
        path for method, path in ROUTES if method == "POST" and any(d.speaks(method, path) for d in app.state.dialects)
    ]
    assert len(paths) > 10
    for path in paths:
        for wish in wishes:
            caller.post(wish, path.replace("{model_id}", "fake-engine"))
            caller.post(wish, f"{path.replace('{model_id}', KEY)}?{PROMPT}=1")


def _upload_wrongly(caller: Caller) -> None:
    """Marks in pictures, beside them and in their names."""
    form = {"Content-Type": "multipart/form-data; boundary=b0undary"}
    marks = f"{PROMPT} {KEY}".encode()
    text = base64.b64encode(marks).decode()
    for path in ("/generate", "/v1/jobs", "/v1/upscale"):
        for image in (PROMPT, KEY, f"http://{KEY}/{PROMPT}", f"data:{PROMPT},{KEY}", text, [PROMPT], {PROMPT: KEY}):
            caller.post({**QUICK, "image": image}, path)
        for files in ({"image": marks}, {PROMPT: marks}, {KEY: marks}, {"image": png(), "mask": marks}):
            caller.ask("POST", path, content=form_of(QUICK, files), headers=form)
        caller.ask("POST", path, content=form_of(QUICK, {"image": marks * 2**19}), headers=form)
        caller.ask("POST", path, content=form_of(QUICK, {"image": png()})[:-9], headers=form)
        foreign = {**form, "Origin": f"https://{PROMPT.replace(' ', '-')}.example"}
        caller.ask("POST", path, content=form_of(QUICK, {"image": png()}), headers=foreign)
    for image in (PROMPT, KEY, text, [PROMPT]):
        caller.post({"image": image, PROMPT: KEY}, "/v1/image-info")
    caller.ask("POST", "/v1/image-info", content=form_of(QUICK, {PROMPT: marks}), headers=form)
    told = png()[:33] + chunk(b"tEXt", b"parameters\0" + marks) + png()[33:]
    assert caller.ask("POST", "/v1/image-info", content=told, headers={"Content-Type": "image/png"}).status_code == 200
    assert caller.post({**QUICK, "strength": 1.0, "image": base64.b64encode(png()).decode()}).status_code == 202


def _ask_what_is_no_request(caller: Caller) -> None:
    marks = f"{PROMPT} {KEY} ".encode()
    long = marks.replace(b" ", b"/") * (MAX_TARGET_BYTES // len(marks) + 1)
    many = marks * (MAX_HEAD_BYTES // len(marks) + 1)
    assert caller.listen(caller.begin(marks + b"\r\n\r\n")) == 400
    assert caller.listen(caller.begin(b"GET /%s HTTP/1.1\r\n\r\n" % long)) == 414
    assert caller.listen(caller.begin(b"GET / HTTP/1.1\r\nX-Prompt: %s\r\n\r\n" % many)) == 431


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


def _operate(caller: Caller) -> None:
    """What the command line asks over its own socket, rightly and wrongly."""
    made = caller.operate("POST", "/v1/keys", {"name": "watcher", "scopes": ["read"]})
    caller.secrets.append(made["text"].rpartition("_")[2])
    assert caller.post(QUICK, headers={"Authorization": f"Bearer {made['text']}"}).status_code == 403
    caller.operate("POST", f"/v1/keys/{made['id']}/revoke")
    for key_id in (made["id"], "0" * 12, KEY):
        caller.operate("POST", f"/v1/keys/{key_id}/rotate", {"grace_hours": 1})
        caller.operate("POST", f"/v1/keys/{key_id}/rotate", {"grace_hours": PROMPT, KEY: PROMPT})
    for wish in (
        {"name": [KEY], "scopes": [PROMPT, KEY]},
        {"name": KEY * 2, "scopes": KEY, PROMPT: KEY},
        [KEY],
        PROMPT,
    ):
        caller.operate("POST", "/v1/keys", wish)
    assert len(caller.operate("GET", "/v1/keys")["keys"]) == 2
    assert PROMPT.encode() in caller.operate("GET", "/v1/backup"), "it is the operator's"


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
    with contextlib.suppress(httpx2.TimeoutException):
        caller.post(SLOW, "/generate", timeout=0.5)
    assert caller.post(SLOW, "/generate").status_code == 504
    caller.server.wait_until_ready()


def _fill_the_queue(caller: Caller) -> None:
    """As many jobs as may wait, and one more; then none."""
    jobs: list[str] = []
    while (answer := caller.post(SLOW, headers={"Idempotency-Key": f"slow-{len(jobs)}"})).status_code == 202:
        jobs.append(answer.json()["id"])
    assert answer.json()["code"] == "queue_full"
    assert caller.ask("GET", f"/v1/jobs/{jobs[-1]}/images/0").status_code == 409
    for job_id in jobs:
        caller.post({}, f"/v1/jobs/{job_id}/cancel")
    assert caller.post(SLOW, "/generate", headers={"Idempotency-Key": "slow-0"}).status_code == 409


def _find_mistakes(caller: Caller, folder: Path) -> None:
    """Errors that nobody foresaw, with the prompt in them, and a picture that is gone."""
    assert caller.post({**QUICK, "prompt": f"{PROMPT} clumsy"}).status_code == 500
    fumbled = caller.post({**QUICK, "prompt": f"{PROMPT} fumble"}).json()["id"]
    assert caller.ended(fumbled)["error"]["code"] == "internal_error"
    drawn = caller.post(QUICK).json()["id"]
    caller.ended(drawn)
    [picture] = (folder / "data" / "server" / "results").glob(f"*/{drawn}.0")
    picture.unlink()
    assert caller.ask("GET", f"/v1/jobs/{drawn}/images/0").status_code == 410


def _fill_the_disk(caller: Caller) -> None:
    """No write of the server succeeds: what a full disk does. Its log goes through a pipe."""
    unlimited = resource.RLIM_INFINITY
    resource.prlimit(caller.server.process.pid, resource.RLIMIT_FSIZE, (0, unlimited))
    until(lambda: caller.post(QUICK).status_code == 503, 10, "refused")
    resource.prlimit(caller.server.process.pid, resource.RLIMIT_FSIZE, (unlimited, unlimited))
    until(caller.server.is_ready, 10, "ready again")


def _drain(caller: Caller) -> None:
    """Whoever comes while the last job is drawn."""
    last = caller.post(SLOW).json()["id"]
    until(lambda: caller.ask("GET", f"/v1/jobs/{last}").json()["status"] == "running", 10, "running")
    caller.server.process.send_signal(signal.SIGTERM)
    until(lambda: caller.post(QUICK).status_code == 503, 5, "refused")
    caller.post({}, f"/v1/jobs/{last}/cancel")
    assert caller.server.process.wait(20) == 0


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

_CLUMSY_SERVER = """
import sys

if sys.orig_argv[-2:] == ["server", "serve"]:
    from server.executors.message_executor import MessageExecutor
    from server.generator import ImageGenerator

    async def submit(self, new, *pictures, submit=ImageGenerator.submit):
        if "clumsy" in new.params.prompt:
            raise ValueError("cannot take " + new.params.prompt)
        return await submit(self, new, *pictures)

    async def fumble(job):
        raise ValueError("cannot draw " + job.params.prompt)
        yield

    def run(self, job, run=MessageExecutor.run):
        return fumble(job) if "fumble" in job.params.prompt else run(self, job)

    ImageGenerator.submit = submit
    MessageExecutor.run = run
"""

_NO_WEIGHTS = """
import sys

if "server.worker.fake_engine" in sys.orig_argv:
    import time
    from pathlib import Path

    from server.worker.gateway_link import Line
    from server.executors.messages import LoadFailed, Ready

    def send(self, message, send=Line.send):
        if isinstance(message, Ready):
            while not Path("looked-for").exists():
                time.sleep(0.01)
            message = LoadFailed("there are no weights")
        send(self, message)

    Line.send = send
"""

_TALKATIVE_ENGINE = f"""
import sys

if "server.worker.engine_process" in sys.orig_argv:
    import torch

    from engine.models.base import EncodedPrompt
    from engine.models.fake import FakeModel

    def cannot_read(self, told, num_chunks=1, read=FakeModel.encode_prompt):
        prompt = told.text
        if {PROMPT!r} not in prompt:
            return read(self, told, num_chunks)
        if "fog" in prompt:
            return EncodedPrompt(read(self, told, num_chunks).attended * float("nan"))
        if "canvas" in prompt:
            raise torch.OutOfMemoryError("injected")
        raise ValueError("cannot read " + prompt)

    FakeModel.encode_prompt = cannot_read
"""
