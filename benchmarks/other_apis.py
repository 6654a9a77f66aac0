"""What the APIs of other programs cost beside `POST /generate`: one picture of a fake engine, in turn over each.

Every one draws the same five steps of 1 ms on the same server, and answers what its clients read (base64 in JSON, or a
file). Goal: at most 2 ms more than `/generate` answering JSON, p50.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from typing import Any

import httpx2

from benchmarks.common.pairs import interleave, percentile
from benchmarks.common.report import Report
from benchmarks.common.serving import RunningServer, client

GOAL_MS = 2.0
MODEL_ID = "fake-engine:1"
PROMPT = "a cat on a mat"
STEPS = 5
JSON = {"Accept": "application/json"}
REQUESTS: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {
    "/generate": ("/generate", {"prompt": PROMPT, "num_inference_steps": STEPS, "height": 64, "width": 64}, JSON),
    "OpenAI": (
        "/v1/images/generations",
        {"prompt": PROMPT, "model": "gpt-image-1", "size": "64x64", "steps": STEPS},
        JSON,
    ),
    "AUTOMATIC1111": ("/sdapi/v1/txt2img", {"prompt": PROMPT, "steps": STEPS, "width": 64, "height": 64}, JSON),
    "Hugging Face": (
        "/",
        {"inputs": PROMPT, "parameters": {"num_inference_steps": STEPS, "width": 64, "height": 64}},
        {"Accept": "image/png"},
    ),
}
WARM_UP_ROUNDS = 5


def main() -> None:
    """Draw, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.other_apis", description=__doc__)
    parser.add_argument("--repeats", type=int, default=200, help="pictures over each API (default: %(default)s)")
    options = parser.parse_args()
    report = Report("other_apis", vars(options))
    with contextlib.ExitStack() as stack:
        http = stack.enter_context(client())
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        server = stack.enter_context(
            RunningServer.started(MODEL_ID=MODEL_ID, DATA_DIR=folder, LIMIT_REQUESTS_PER_MINUTE="0")
        )
        server.wait_until_warm(http)
        contenders = {name: lambda _, name=name: drawn_ms(http, server, name) for name in REQUESTS}
        interleave(contenders, WARM_UP_ROUNDS, "warm-up")
        times = interleave(contenders, options.repeats, "picture")
    results = {
        name: {"p50": percentile(of_api, 50), "p95": percentile(of_api, 95), "min": min(of_api), "max": max(of_api)}
        for name, of_api in times.items()
    }
    report.table(
        "milliseconds a picture",
        ["", "p50", "p95", "min", "max"],
        [[name, *(f"{value:.2f}" for value in of.values())] for name, of in results.items()],
    )
    for name, of_api in times.items():
        if name != "/generate":
            beyond = [theirs - ours for theirs, ours in zip(of_api, times["/generate"], strict=True)]
            report.goal(f"{name} beyond /generate in the same round, p50", percentile(beyond, 50), GOAL_MS, " ms")
    report.finish(results)


def drawn_ms(http: httpx2.Client, server: RunningServer, name: str) -> float:
    """Draw one picture over an API."""
    path, body, headers = REQUESTS[name]
    began = time.perf_counter()
    http.post(server.url + path, json=body, headers=headers).raise_for_status()
    return 1000 * (time.perf_counter() - began)


if __name__ == "__main__":
    main()
