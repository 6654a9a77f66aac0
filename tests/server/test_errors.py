"""Every error has its place in the table, and becomes a problem document that leaks nothing."""

from __future__ import annotations

import inspect
import json
import logging

import pytest
import structlog
from fastapi import FastAPI
from fastapi.testclient import TestClient

import engine.errors
import server.errors
from engine.errors import InvalidParamsError
from server.error_wording import shortened
from server.errors import PROBLEMS, JobFailedError, RateLimitedError
from server.metrics import Metrics
from server.problems import add_problem_handlers
from server.telemetry import RequestLog

ERRORS = [
    member
    for module in (engine.errors, server.errors)
    for _, member in inspect.getmembers(module, inspect.isclass)
    if issubclass(member, Exception)
]


@pytest.mark.parametrize("error_type", ERRORS, ids=lambda error_type: error_type.__name__)
def test_every_error_class_is_in_the_table(error_type):
    kind = PROBLEMS[error_type]
    assert 400 <= kind.status < 600
    assert kind.code.replace("_", "").isalpha()


def test_every_error_class_is_drawn_in_its_modules_tree():
    for error_type in ERRORS:
        module = inspect.getmodule(error_type)
        assert f"{error_type.__name__} " in module.__doc__


def client_of(error: Exception) -> TestClient:
    app = FastAPI()
    app.add_middleware(RequestLog, metrics=Metrics())
    add_problem_handlers(app)

    @app.get("/")
    async def fail():
        raise error

    return TestClient(app)


@pytest.mark.parametrize("error_type", ERRORS, ids=lambda error_type: error_type.__name__)
def test_every_error_becomes_its_problem_document(error_type):
    arguments = {InvalidParamsError: ("width", "must be even", 3), JobFailedError: ("a reason", "job_failed")}
    named = (
        {"limit": "requests", "headers": {"RateLimit": '"requests";r=0;t=7'}} if error_type is RateLimitedError else {}
    )
    answer = client_of(error_type(*arguments.get(error_type, ("a reason",)), **named)).get("/")
    kind = PROBLEMS[error_type]
    assert answer.status_code == kind.status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == kind.code
    assert answer.json()["detail"] in {"a reason", "width must be even, not 3"}


def test_a_job_that_failed_some_time_ago_is_told_with_the_status_of_its_error():
    answer = client_of(JobFailedError("needs 40 GiB", "does_not_fit")).get("/")
    assert (answer.status_code, answer.json()["code"]) == (422, "does_not_fit")


def test_an_error_nobody_expected_tells_the_caller_nothing_and_the_log_no_message():
    with structlog.testing.capture_logs() as lines:
        answer = client_of(RuntimeError("the secret prompt")).get("/")
    assert answer.status_code == 500
    assert answer.json()["code"] == "internal_error"
    assert "secret" not in answer.text
    assert "secret" not in json.dumps(lines)
    error = next(line for line in lines if line["event"] == "unexpected error")
    assert error["error"] == "RuntimeError"
    assert any("fail" in place for place in error["where"])
    assert error["request_id"] == answer.json()["request_id"]


@pytest.mark.parametrize(
    "value",
    [
        None, True, 3, 2.5, float("nan"), float("inf"), 10**300, -(10**4000), "a" * 10_000, "\ud800", "\x00\x1b[31m",
        b"\xff" * 1000, [1] * 10**5, {"a": 1}, object(), "猫" * 1000, "\ud800" * 1000,
    ],
    ids=lambda value: f"{type(value).__name__}-{str(value)[:8]!a}" if not isinstance(value, int) else "int",
)  # fmt: skip
def test_a_repeated_value_is_short_and_any_json_parser_takes_it(value):
    told = json.dumps(shortened(value), allow_nan=False, ensure_ascii=False).encode()
    assert len(json.loads(told)) <= 100 if isinstance(shortened(value), str) else len(told) < 30
    assert b"\x1b" not in told


def test_logging_is_not_set_up_by_importing():
    assert not any("structlog" in type(handler.formatter).__module__ for handler in logging.getLogger().handlers)
