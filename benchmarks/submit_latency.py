"""From a submitted job to its first step on an idle server, fake engine; and what 100,000 finished jobs cost a submit.

Two real servers take turns, one with an empty job store and one that keeps many finished jobs. Both times begin when
`POST /v1/jobs` is sent: *accepted* ends when the 202 is there, the job's row on the disk; *first step* ends when an
event stream tells of a step, so it has two durable commits in it, one step of 1 ms and a second request. Goals: first
step within 15 ms, p50; accepted beside 100,000 jobs at most 1.2 times as slow.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx2

from benchmarks.common.pairs import interleave, percentile
from benchmarks.common.report import Report
from benchmarks.common.serving import RunningServer, client
from engine.params import GenerationParams
from server.store import job_table
from server.store.database import database_opened
from server.store.record import LOCAL_KEY, NewJob, Outcome

GOAL_MS = 15.0
GOAL_RATIO = 1.2
MODEL_ID = "fake-engine:1"
BODY = {"prompt": "a cat on a mat", "num_inference_steps": 5, "height": 64, "width": 64}
WARM_UP_ROUNDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit:
    """One job, in milliseconds from the request."""

    accepted: float
    first_step: float


def main() -> None:
    """Fill a store, submit, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.submit_latency", description=__doc__)
    parser.add_argument("--repeats", type=int, default=200, help="jobs for each server (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=100_000, help="finished jobs in the store (default: %(default)s)")
    options = parser.parse_args()
    report = Report("submit_latency", vars(options))
    with contextlib.ExitStack() as stack:
        http = stack.enter_context(client())
        servers = {}
        for name, num_jobs in (("empty store", 0), (f"{options.jobs} jobs", options.jobs)):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            fill(folder / "server", num_jobs)
            servers[name] = stack.enter_context(RunningServer.started(MODEL_ID=MODEL_ID, DATA_DIR=str(folder)))
        for server in servers.values():
            server.wait_until_warm(http)
        contenders = {name: lambda _, server=server: submitted(http, server) for name, server in servers.items()}
        interleave(contenders, WARM_UP_ROUNDS, "warm-up")
        submits = interleave(contenders, options.repeats, "submit")
    results = {name: summarized(of_server) for name, of_server in submits.items()}
    report.table(
        "milliseconds a job",
        ["", "p50", "p95", "min", "max"],
        [
            [f"{name}, {what}", *(f"{value:.2f}" for value in of.values())]
            for name, figures in results.items()
            for what, of in figures.items()
        ],
    )
    empty, full = results.values()
    report.goal("idle server, submit to first step, p50", empty["first step"]["p50"], GOAL_MS, " ms")
    report.goal(
        "accepted, beside many jobs / alone, p50", full["accepted"]["p50"] / empty["accepted"]["p50"], GOAL_RATIO
    )
    report.finish(results)


def submitted(http: httpx2.Client, server: RunningServer) -> Submit:
    """Submit a job, hear of its first step, and wait until it is done: the next one finds the server idle."""
    began = time.perf_counter()
    links = http.post(f"{server.url}/v1/jobs", json=BODY).raise_for_status().json()["links"]
    accepted = time.perf_counter()
    first_step = None
    with http.stream("GET", server.url + links["events"]) as stream:
        for line in stream.iter_lines():
            if first_step is None and line.startswith("data: ") and json.loads(line[len("data: ") :])["step"]:
                first_step = time.perf_counter()
    if first_step is None:
        raise RuntimeError("the job ended without a step")
    return Submit(accepted=1000 * (accepted - began), first_step=1000 * (first_step - began))


def fill(folder: Path, num_jobs: int) -> None:
    """Keep so many finished jobs in a store: one that has lived as jobs do, and copies of it."""
    if not num_jobs:
        return
    params = GenerationParams(prompt=str(BODY["prompt"]), num_inference_steps=5, height=64, width=64, seed=1)
    new = NewJob(
        id=f"{0:016x}",
        key_id=LOCAL_KEY,
        user=None,
        params=params,
        output_format="png",
        is_bound=False,
        idempotency_key=None,
        request_digest=hashlib.sha256().digest(),
        created_at=time.time(),
    )
    with database_opened(folder) as connection:
        connection.execute("BEGIN")
        job_table.add(connection, new, {})
        job_table.begin(connection, new.id, time.time())
        job_table.finish(connection, new.id, 1, Outcome(status="done", finished_at=time.time()))
        columns = [row["name"] for row in connection.execute("PRAGMA table_info(jobs)")]
        copied = ", ".join(column for column in columns if column not in {"seq", "id"})
        connection.execute(
            f"WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?)"  # noqa: S608 - of the schema's own names
            f" INSERT INTO jobs (id, {copied}) SELECT printf('%016x', n), {copied} FROM numbers, jobs",
            (num_jobs - 1,),
        )
        connection.execute("COMMIT")


def summarized(submits: Sequence[Submit]) -> dict[str, dict[str, float]]:
    """What was measured -> its percentiles."""
    columns = {
        "accepted": [submit.accepted for submit in submits],
        "first step": [submit.first_step for submit in submits],
    }
    return {
        name: {"p50": percentile(values, 50), "p95": percentile(values, 95), "min": min(values), "max": max(values)}
        for name, values in columns.items()
    }


if __name__ == "__main__":
    main()
