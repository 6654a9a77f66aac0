"""What keys, limits, metrics, logs and headers add to a cheap request, and what a scrape of the metrics takes.

In one process, without sockets: every request goes to the app with an API key, limits and a log file, and right before
or after it to the same app without anything around its routes but a stand-in, which leaves on a request what routes ask
for. The difference of the two is what the border costs. Goals: 1 ms, p50; 5 ms for a scrape beside 1,000 waiting jobs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from benchmarks.common.pairs import percentile
from benchmarks.common.report import Report
from server.access.caller import Caller
from server.config import Settings
from server.executors.messages import WorkDone
from server.log_format import configure_logging
from server.main import create_app
from server.metrics import Metrics
from server.store.api_keys import ALL_SCOPES
from server.worker.fake_executor import FakeExecutor

GOAL_MS = 1.0
GOAL_SCRAPE_MS = 5.0
KEY = "a-key-of-more-than-thirty-two-characters"
BODY = json.dumps({"prompt": "a cat on a mat", "num_inference_steps": 1}).encode()
WARM_UP_ROUNDS = 30
OBSERVATIONS = 100_000


class StandIn:
    """Leaves on a request what routes and handlers ask for, and does nothing else."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._caller = Caller(key_id="environment", scopes=ALL_SCOPES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            scope["state"] = {"request_id": "0", "log": {}, "caller": self._caller}
        await self._app(scope, receive, send)


@dataclass(slots=True)
class Answer:
    """What an app has sent."""

    status: int = 0
    body: bytes = b""

    async def take(self, message: Message) -> None:
        """Remember a message."""
        self.status = message.get("status", self.status)
        self.body += message.get("body", b"")


def main() -> None:
    """Ask, in turn, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.border_cost", description=__doc__)
    parser.add_argument("--repeats", type=int, default=2000, help="requests of each kind (default: %(default)s)")
    parser.add_argument("--waiting", type=int, default=1000, help="jobs beside a scrape (default: %(default)s)")
    options = parser.parse_args()
    report = Report("border_cost", vars(options))
    with logging_to_a_file():
        added, scrapes = asyncio.run(measured(options.repeats, options.waiting))
    results = {kind: summarized(values) for kind, values in (added | {"scrape": scrapes}).items()}
    results["work item counted"] = {"mean": observed_ms()}
    report.table(
        "milliseconds a request",
        ["", "p50", "p95", "min"],
        [[kind, *(f"{of[name]:.3f}" for name in ("p50", "p95", "min"))] for kind, of in results.items() if "p50" in of],
    )
    report.table(
        "counting one work item, microseconds", ["mean"], [[f"{1000 * results['work item counted']['mean']:.1f}"]]
    )
    for kind in added:
        if kind.endswith("added"):
            report.goal(f"{kind} by the border, p50", results[kind]["p50"], GOAL_MS, " ms")
    report.goal(f"a scrape beside {options.waiting} waiting jobs, p50", results["scrape"]["p50"], GOAL_SCRAPE_MS, " ms")
    report.finish(results)


async def measured(repeats: int, num_waiting: int) -> tuple[dict[str, list[float]], list[float]]:
    """Milliseconds of each kind of request, with the border and without it, and what it added; and of scrapes."""
    async with running(is_bare=False) as whole, running(is_bare=True) as bare:
        job = json.loads((await asked(whole, "POST", "/v1/jobs", BODY))[1].body)["id"]
        bare_job = json.loads((await asked(bare, "POST", "/v1/jobs", BODY))[1].body)["id"]
        kinds = {
            "GET /v1/jobs/{id}": (("GET", f"/v1/jobs/{job}", b""), ("GET", f"/v1/jobs/{bare_job}", b"")),
            "POST /v1/jobs": (("POST", "/v1/jobs", BODY),) * 2,
        }
        values: dict[str, list[float]] = {}
        for kind, (of_whole, of_bare) in kinds.items():
            pairs = []
            for number in range(WARM_UP_ROUNDS + repeats):
                # Who goes first takes turns, too: the second finds warmer caches.
                first, second = ((whole, of_whole), (bare, of_bare))[:: 1 if number % 2 else -1]
                times = [(await asked(app, *request))[0] for app, request in (first, second)]
                pairs.append(times if number % 2 else times[::-1])
            pairs = pairs[WARM_UP_ROUNDS:]
            values[f"{kind}, whole"] = [pair[0] for pair in pairs]
            values[f"{kind}, bare"] = [pair[1] for pair in pairs]
            values[f"{kind}, added"] = [pair[0] - pair[1] for pair in pairs]
        return values, await scraped(whole, num_waiting)


async def scraped(app: FastAPI, num_waiting: int) -> list[float]:
    """Milliseconds of scrapes beside many waiting jobs."""
    executor = engine_of(app)
    executor.hang()
    for _ in range(num_waiting):
        await asked(app, "POST", "/v1/jobs", BODY, waits=False)
    gc.collect()
    values = [(await asked(app, "GET", "/metrics", waits=False))[0] for _ in range(100)]
    executor.wake()
    return values


async def asked(app: FastAPI, method: str, path: str, body: bytes = b"", *, waits: bool = True) -> tuple[float, Answer]:
    """Milliseconds until a request was answered, and the answer. Waits until nothing is drawn any more."""
    scope = scope_of(method, path)
    answer = Answer()

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    began = time.perf_counter()
    await app(scope, receive, answer.take)
    milliseconds = 1000 * (time.perf_counter() - began)
    if answer.status not in {200, 202}:
        raise RuntimeError(f"{method} {path}: {answer.status} {answer.body!r}")
    while waits and app.state.service.generator.dispatcher.num_running:  # noqa: ASYNC110 -- nothing is added to what is measured
        await asyncio.sleep(0)
    return milliseconds, answer


def scope_of(method: str, path: str) -> Scope:
    """A request as uvicorn hands it over."""
    headers = [(b"host", b"127.0.0.1:8000"), (b"accept", b"*/*"), (b"user-agent", b"a benchmark")]
    headers += [(b"authorization", f"Bearer {KEY}".encode()), (b"content-type", b"application/json")]
    return {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": method,
        "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "headers": headers, "client": ("127.0.0.1", 50000), "server": ("127.0.0.1", 8000),
    }  # fmt: skip


@contextlib.asynccontextmanager
async def running(*, is_bare: bool) -> AsyncIterator[FastAPI]:
    """The app with a fake engine in the same process; `is_bare` takes away all that is around its routes."""
    with tempfile.TemporaryDirectory() as folder:
        wanted: dict[str, Any] = {
            "model_id": "fake", "data_dir": Path(folder), "api_key": KEY, "max_queued_requests": 10**5,
            "limit_requests_per_minute": 10**5, "limit_work_units_per_hour": 10**5, "limit_jobs": 10**5,
        }  # fmt: skip
        app = create_app(Settings(_env_file=None, **wanted), executor=FakeExecutor())  # type: ignore[call-arg]  # pydantic-settings adds it at run time
        if is_bare:
            app.user_middleware[:] = [Middleware(StandIn)]
        async with app.router.lifespan_context(app):
            await engine_of(app).wait_until_ready()
            yield app


def engine_of(app: FastAPI) -> FakeExecutor:
    """The only engine of an app that `running` has started."""
    [seat] = app.state.service.generator.executor.seats
    assert isinstance(seat.executor, FakeExecutor)  # noqa: S101 -- our own mistake
    return seat.executor


@contextlib.contextmanager
def logging_to_a_file() -> Iterator[None]:
    """Log as a server does under systemd: JSON, to a file."""
    with tempfile.TemporaryFile("w") as file, contextlib.redirect_stderr(file):
        configure_logging("info", "json")
        yield


def observed_ms() -> float:
    """What it costs to count one of the engine's work items, on average."""
    metrics, item = Metrics(), WorkDone("step", 0.05, 4, 512, 512, {})
    began = time.perf_counter()
    for _ in range(OBSERVATIONS):
        metrics.work_done(item.kind, item.rows, item.seconds)
    return 1000 * (time.perf_counter() - began) / OBSERVATIONS


def summarized(values: list[float]) -> dict[str, float]:
    """Milliseconds."""
    return {"p50": percentile(values, 50), "p95": percentile(values, 95), "min": min(values)}


if __name__ == "__main__":
    main()
