"""Limits over HTTP: who is refused, when, in which words; and that a repeat or a refusal takes nothing."""

from __future__ import annotations

import contextlib
import json
import socket
import time

import httpx2
import pytest

from server.access.caller import LOCAL_CALLER, OPERATOR, Caller
from server.access.rate_limit_middleware import RateLimitMiddleware
from server.access.rate_limits import KeyLimits
from server.errors import RateLimitedError
from server.worker.fake_executor import FakeExecutor

KEY = "a key of forty characters or even a little more"
WISH = {"prompt": "a cat", "num_inference_steps": 4, "height": 64, "width": 64}
WHOLE = {"prompt": "a cat"} | {"height": 512, "width": 512}
"""Costs one work unit."""


def ask(server, path: str = "/v1/queue", *, key: str = KEY, method: str = "GET", **options):
    headers = {"Authorization": f"Bearer {key}"} | options.pop("headers", {})
    return httpx2.request(method, server.url + path, headers=headers, timeout=10, **options)


def submit(server, *, idempotency_key: str | None = None, wish: dict | None = None):
    headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
    return ask(server, "/v1/jobs", method="POST", json=wish or WISH, headers=headers)


def test_a_key_that_asks_too_often_gets_429_that_names_the_limit_and_the_time(serve):
    server = serve(api_key=KEY, limit_requests_per_minute=3)
    began = time.monotonic()
    left = [ask(server).headers["RateLimit"] for _ in range(3)]
    assert [answer.split(";")[:2] for answer in left] == [['"requests"', f"r={number}"] for number in (2, 1, 0)]
    refused = ask(server)
    assert refused.status_code == 429
    assert refused.headers["RateLimit-Policy"] == '"requests";q=3;w=60'
    wait_s = int(refused.headers["Retry-After"])
    assert 60 - (time.monotonic() - began) <= wait_s <= 60
    assert refused.headers["RateLimit"] == f'"requests";r=0;t={wait_s}'
    problem = refused.json()
    assert (problem["code"], problem["retry_after"]) == ("rate_limited", wait_s)
    assert problem["detail"] == f"at most 3 requests per minute per key; the next is possible in {wait_s} s"
    assert refused.headers["X-Request-Id"] == problem["request_id"]


def test_what_is_open_to_all_and_whoever_has_no_key_are_not_limited(serve):
    server = serve(api_key=KEY, limit_requests_per_minute=1)
    assert ask(server).status_code == 200
    assert ask(server).status_code == 429
    for path in ("/", "/health", "/livez", "/readyz", "/openapi.json"):
        answer = ask(server, path)
        assert answer.status_code == 200
        assert "RateLimit" not in answer.headers
    without_keys = serve(limit_requests_per_minute=1, limit_jobs=1, limit_work_units_per_hour=1)
    for _ in range(5):
        answer = httpx2.post(f"{without_keys.url}/v1/jobs", json=WHOLE)
        assert answer.status_code == 202
        assert "RateLimit" not in answer.headers


def test_the_body_of_a_refused_request_is_not_waited_for(serve):
    server = serve(api_key=KEY, limit_requests_per_minute=1)
    ask(server)
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        head = (
            f"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: {KEY}\r\n"
            "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
        )
        connection.sendall(head.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 429 ")


def test_every_answer_to_a_key_tells_what_is_left_an_error_and_a_stream_too(serve):
    server = serve(api_key=KEY)
    job = submit(server)
    for answer in (
        job,
        ask(server, "/v1/jobs/0000000000000000"),
        ask(server, "/nothing"),
        ask(server, "/v1/jobs", method="POST", content=b"{"),
        ask(server, f"/v1/jobs/{job.json()['id']}/events"),
    ):
        assert answer.headers["RateLimit-Policy"] == '"requests";q=1200;w=60'
        assert answer.headers["RateLimit"].startswith('"requests";r=11')


def test_a_key_may_have_so_many_jobs_and_then_one_more_for_each_that_ends(serve):
    server = serve(FakeExecutor(step_s=0.05), api_key=KEY, limit_jobs=3)
    jobs = [submit(server, wish=WISH | {"num_inference_steps": 100}).json()["id"] for _ in range(3)]
    refused = submit(server)
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert "at most 3 queued or running jobs per key" in refused.json()["detail"]
    assert refused.headers["RateLimit-Policy"] == '"jobs";q=3;qu="concurrent-requests"'
    assert int(refused.headers["Retry-After"]) <= 10
    ask(server, f"/v1/jobs/{jobs[1]}/cancel", method="POST")
    assert submit(server).status_code == 202
    assert submit(server).status_code == 429


def test_a_job_counts_again_after_a_restart(serve, tmp_path):
    settings = {"api_key": KEY, "limit_jobs": 2, "data_dir": tmp_path}
    first = serve(FakeExecutor(load_s=60), **settings)
    assert [submit(first).status_code for _ in range(3)] == [202, 202, 429]
    first.stop()
    assert submit(serve(FakeExecutor(load_s=60), **settings)).status_code == 429


def test_work_units_are_taken_by_accepted_jobs_alone(serve):
    server = serve(api_key=KEY, limit_work_units_per_hour=2, limit_jobs=0)
    assert submit(server, idempotency_key="a", wish=WHOLE).status_code == 202
    for _ in range(3):
        assert submit(server, idempotency_key="a", wish=WHOLE).status_code == 200
        assert submit(server, wish={"prompt": ""}).status_code == 422
        assert submit(server, wish=WHOLE | {"num_images": 2}).status_code == 429
    assert submit(server, wish=WHOLE).status_code == 202
    refused = submit(server)
    assert refused.status_code == 429
    assert 3590 <= int(refused.headers["Retry-After"]) <= 3600
    assert refused.headers["RateLimit"].startswith('"work-units";r=0;t=3')
    # What was accepted before can still be looked for, and a repeat still finds its job.
    assert submit(server, idempotency_key="a", wish=WHOLE).status_code == 200
    assert ask(server, "/v1/jobs").status_code == 200


def test_a_job_that_could_never_be_accepted_is_not_told_to_come_back(serve):
    server = serve(api_key=KEY, limit_work_units_per_hour=2)
    refused = submit(server, wish=WHOLE | {"num_images": 3})
    assert refused.status_code == 429
    assert "Retry-After" not in refused.headers
    assert refused.json()["detail"] == "at most 2 work units per hour per key, and this request alone costs 3"


def test_a_key_may_have_a_quarter_of_all_connections_in_hand_and_others_are_served(serve):
    server = serve(FakeExecutor(load_s=60), api_key=KEY, max_connections=12)
    path = f"/v1/jobs/{submit(server).json()['id']}/events"
    with contextlib.ExitStack() as followed, httpx2.Client(headers={"X-API-Key": KEY}) as client:
        for _ in range(3):
            stream = followed.enter_context(client.stream("GET", server.url + path))
            assert stream.status_code == 200
        refused = ask(server)
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        assert "at most 3 concurrent requests per key" in refused.json()["detail"]
        assert refused.headers["RateLimit-Policy"] == '"concurrent-requests";q=3;qu="concurrent-requests"'
        assert refused.headers["Retry-After"] == "5"
        assert ask(server, "/livez").status_code == 200
        stream.close()
        deadline = time.monotonic() + 5
        while ask(server).status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.02)


# --- with a clock of its own ------------------------------------------------------------------------------------------


async def served(part: RateLimitMiddleware, caller: Caller) -> dict[str, str]:
    """The headers of an answer."""
    told: list[dict] = []

    async def send(message):
        told.append(message)

    await part({"type": "http", "state": {"caller": caller}}, None, send)
    return {name.decode(): value.decode() for name, value in told[0]["headers"]}


async def app(_scope, _receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def test_whoever_comes_back_when_he_was_told_to_is_served_and_just_before_is_not():
    now = 0.0
    part = RateLimitMiddleware(
        app, KeyLimits(requests_per_minute=2, work_units_per_hour=0, jobs=0, clock=lambda: now), 9
    )
    caller = Caller(key_id="k", scopes=frozenset())
    assert "ratelimit" in await served(part, caller)
    now = 20.25
    assert "ratelimit" in await served(part, caller)
    now = 30.5
    with pytest.raises(RateLimitedError) as refused:
        await served(part, caller)
    told_s = refused.value.retry_after_s
    assert told_s == 29.5  # the header counts it up to 30
    now = 30.5 + told_s - 1e-6
    with pytest.raises(RateLimitedError):
        await served(part, caller)
    now = 30.5 + told_s
    assert (await served(part, caller))["ratelimit"] == '"requests";r=0;t=21'


@pytest.mark.parametrize("caller", [OPERATOR, LOCAL_CALLER])
async def test_the_operator_and_local_programs_pass(caller):
    part = RateLimitMiddleware(app, KeyLimits(requests_per_minute=1, work_units_per_hour=0, jobs=0), max_in_hand=1)
    for _ in range(5):
        assert not await served(part, caller)


def test_a_limit_that_is_reached_costs_the_server_little(serve):
    """Refusals are cheap: no body, no store, no engine."""
    server = serve(api_key=KEY, limit_requests_per_minute=1)
    with httpx2.Client(headers={"X-API-Key": KEY}) as client:
        client.get(f"{server.url}/v1/jobs")
        answers = [client.post(f"{server.url}/v1/jobs", content=json.dumps(WISH)) for _ in range(50)]
    assert {answer.status_code for answer in answers} == {429}
    assert not server.executor.started
