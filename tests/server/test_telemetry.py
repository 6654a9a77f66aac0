"""What is logged: whose request and which job a line belongs to, and errors without what callers wrote."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import sqlite3
import time

import httpx2
import pytest
import structlog

from engine.errors import DeviceError, InvalidParamsError
from server import log_format
from server.log_format import configure_logging, job_context, log_loop_error
from server.worker.fake_executor import FakeExecutor

SECRET = "the marked prompt"


@contextlib.contextmanager
def logged(**options):
    """Set logging up as the server does, and collect its lines as objects; put everything back."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level, structlog.get_config())
    lines: list[dict] = []
    out = io.StringIO()
    configure_logging("debug", "json", **options)
    [handler] = root.handlers
    handler.setStream(out)
    try:
        yield lines
    finally:
        root.handlers[:], config = before[0], before[2]
        root.setLevel(before[1])
        structlog.configure(**config)
        lines += [json.loads(line) for line in out.getvalue().splitlines()]


def fail_with(error: Exception) -> None:
    raise error


def told_of(error: Exception, **options) -> str:
    with logged(**options) as lines:
        try:
            fail_with(error)
        except type(error):
            structlog.get_logger("test").exception("it failed")
    return lines[0]["exception"]


# --- whose line -------------------------------------------------------------------------------------------------------


def test_a_jobs_lines_carry_its_own_ids_whoever_made_room_for_it(serve):
    """The second job begins when the first ends, and fails in a way that nobody expected."""
    executor = FakeExecutor(step_s=0.1, max_images_in_flight=1)
    with logged() as lines:
        running = serve(executor)
        wish = {"prompt": SECRET, "num_inference_steps": 10}
        with httpx2.Client(base_url=running.url) as client:
            first = client.post("/v1/jobs", json=wish, headers={"X-Request-Id": "of-the-first"}).json()
            second = client.post("/v1/jobs", json=wish, headers={"X-Request-Id": "of-the-second"}).json()
            running.call(executor.fail_next, ValueError(f"cannot draw {SECRET}"))
            for job in (first, second):
                while client.get(job["links"]["self"]).json()["finished_at"] is None:
                    time.sleep(0.01)
        running.stop()
    [failure] = [line for line in lines if line["event"] == "drawing a job failed"]
    assert (failure["job_id"], failure["request_id"]) == (second["id"], "of-the-second")
    assert SECRET not in json.dumps(lines)


def test_a_requests_line_names_its_request_and_its_job_once(serve):
    with logged() as lines:
        running = serve()
        with httpx2.Client(base_url=running.url) as client:
            answer = client.post("/v1/jobs", json={"prompt": SECRET}, headers={"X-Request-Id": "mine"}).json()
            client.get("/livez")
        running.stop()
    asked, alive = (line for line in lines if line["event"] == "request")
    assert (asked["request_id"], asked["job_id"], asked["key_id"]) == ("mine", answer["id"], "local")
    assert "job_id" not in alive
    assert alive["request_id"] != "mine"


def test_a_job_keeps_the_ids_of_its_request_and_nothing_else_of_its_context():
    structlog.contextvars.bind_contextvars(request_id="mine")
    try:
        context = job_context("0123456789abcdef")
    finally:
        structlog.contextvars.clear_contextvars()
    told = context.run(structlog.contextvars.get_contextvars)
    assert told == {"request_id": "mine", "job_id": "0123456789abcdef"}
    assert structlog.contextvars.get_contextvars() == {}


def test_what_the_engine_says_of_a_job_carries_its_id_and_nothing_unknown():
    with logged() as lines:
        logging.getLogger("engine.engine").warning("failed", extra={"job_id": "a", "prompt": SECRET})
    assert lines[0]["job_id"] == "a"
    assert "prompt" not in lines[0]


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        ValueError(SECRET), KeyError(SECRET), RuntimeError(SECRET), UnicodeEncodeError("utf-8", SECRET, 0, 1, SECRET),
        InvalidParamsError("sampler", "must be one of those", SECRET),
        ExceptionGroup(SECRET, [ValueError(SECRET), KeyError(SECRET)]),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_a_message_that_could_quote_a_caller_is_left_out_and_type_and_place_remain(error):
    told = told_of(error)
    assert SECRET not in told
    assert f"{type(error).__qualname__}: (message left out: it could contain a prompt)" in told
    assert "in fail_with" in told
    assert SECRET in told_of(error, shows_prompts=True)


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left"), sqlite3.OperationalError("disk I/O error"), DeviceError("CUDA error: 700")]
)
def test_a_message_that_helps_the_operator_is_told(error):
    assert str(error) in told_of(error)


def test_the_reasons_of_an_error_are_told_under_the_same_rule():
    try:
        try:
            fail_with(ValueError(SECRET))
        except ValueError as reason:
            raise OSError("the disk is gone") from reason
    except OSError as error:
        told = told_of(error)
    assert (
        told.index("OSError: the disk is gone") < told.index("caused by") < told.index("ValueError: (message left out")
    )
    assert SECRET not in told


async def test_an_error_in_a_task_that_nobody_asked_about_is_logged_without_its_message():
    """asyncio's own line would quote it in the task's name."""
    loop = asyncio.get_running_loop()

    async def fails() -> None:
        raise ValueError(SECRET)

    with logged() as lines:
        loop.set_exception_handler(log_loop_error)
        try:
            task = asyncio.create_task(fails())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            del task
        finally:
            loop.set_exception_handler(None)
    [line] = [line for line in lines if line["event"] == "unexpected error"]
    assert "never retrieved" in line["what"]
    assert "in fails" in line["exception"]
    assert SECRET not in json.dumps(lines)


def test_a_ring_of_errors_is_written_once():
    first, second = OSError("first"), OSError("second")
    first.__cause__, second.__cause__ = second, first
    written = log_format._ExceptionFormatter(shows_all=False, safe_errors=(OSError,))(
        None, "error", {"exc_info": first}
    )["exception"]
    assert (written.count("first"), written.count("second")) == (1, 1)
