"""Two engines against one, on this host and over HTTP, and what a job costs more over HTTP. Fake engines, loopback.

Each fake engine draws one picture at a time, in steps that sleep: engines compete for nothing but what gateway and
protocol take. *Jobs a second*: that many jobs are submitted at once, until the last is done. *Milliseconds a job*: one
job at a time on an idle server, from `POST /generate` to the picture. Goals: two engines draw at least 1.9 times as
many jobs as one; over HTTP a job takes at most 5 ms longer, p50.
"""

from __future__ import annotations

import argparse
import contextlib
import secrets
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2

from benchmarks.common.pairs import interleave, percentile
from benchmarks.common.report import Report
from benchmarks.common.serving import RunningServer, client

GOAL_RATIO = 1.9
GOAL_MS = 5.0
BODY = {"prompt": "a cat", "num_inference_steps": 10, "height": 64, "width": 64}
SETTINGS = {
    "MODEL_ID": "fake-engine:10",
    "MAX_CONCURRENT_REQUESTS": "1",
    "MAX_QUEUED_REQUESTS": "1000",
    "LIMIT_JOBS": "0",
    "LIMIT_REQUESTS_PER_MINUTE": "0",
}
WARM_UP_ROUNDS = 2


def main() -> None:
    """Start engines and servers, draw, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engines", description=__doc__)
    parser.add_argument("--repeats", type=int, default=50, help="single jobs for each server (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=60, help="jobs at once (default: %(default)s)")
    options = parser.parse_args()
    report = Report("engines", vars(options))
    token = secrets.token_hex(16)
    with contextlib.ExitStack() as stack:
        http = stack.enter_context(client())

        def server(**settings: str) -> RunningServer:
            return stack.enter_context(RunningServer.started(**SETTINGS, **settings))

        hosts = [
            stack.enter_context(RunningServer.started("engine", **SETTINGS, ENGINE_TOKEN=token)).url for _ in range(3)
        ]
        servers = {
            "one local": server(),
            "two local": server(DEVICES="cpu,cpu"),
            "one over HTTP": server(ENGINES=hosts[0], ENGINE_TOKEN=token),
            "two over HTTP": server(ENGINES=",".join(hosts[1:]), ENGINE_TOKEN=token),
        }
        for name, running in servers.items():
            wait_until_all_draw(http, running, 2 if name.startswith("two") else 1)
        singles = {name: running for name, running in servers.items() if name.startswith("one")}
        contenders = {name: lambda _, running=running: one(http, running) for name, running in singles.items()}
        interleave(contenders, WARM_UP_ROUNDS, "warm-up")
        single_ms = interleave(contenders, options.repeats, "single job")
        rates = {name: jobs_a_second(running, options.jobs) for name, running in servers.items()}
    medians = {name: percentile(of_server, 50) for name, of_server in single_ms.items()}
    report.table("jobs a second", ["", "jobs/s"], [[name, f"{rate:.2f}"] for name, rate in rates.items()])
    report.table("milliseconds a job", ["", "p50"], [[name, f"{value:.2f}"] for name, value in medians.items()])
    report.goal("one / two engines, local", rates["one local"] / rates["two local"], 1 / GOAL_RATIO)
    report.goal("one / two engines, over HTTP", rates["one over HTTP"] / rates["two over HTTP"], 1 / GOAL_RATIO)
    report.goal("a job, more over HTTP, p50", medians["one over HTTP"] - medians["one local"], GOAL_MS, " ms")
    report.finish({"jobs a second": rates, "milliseconds a job": medians})


def wait_until_all_draw(http: httpx2.Client, server: RunningServer, num_engines: int) -> None:
    """Return when so many engines of a server are ready."""
    while True:
        engines = http.get(f"{server.url}/health").json()["engines"]
        if sum(engine["state"] == "ready" for engine in engines) == num_engines:
            return
        time.sleep(0.02)


def one(http: httpx2.Client, server: RunningServer) -> float:
    """Draw one picture; milliseconds."""
    began = time.perf_counter()
    http.post(f"{server.url}/generate", json=BODY, timeout=60).raise_for_status()
    return 1000 * (time.perf_counter() - began)


def jobs_a_second(server: RunningServer, num_jobs: int) -> float:
    """Let so many callers ask at once, and wait for all of them."""
    with client() as http, ThreadPoolExecutor(num_jobs) as callers:
        began = time.perf_counter()
        list(callers.map(lambda _: one(http, server), range(num_jobs)))
        return num_jobs / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
