"""How soon a server answers, and how soon it draws: from the start of its process to `/health` and the first picture.

Each start is a new process on a free port. Files are as warm as the start before left them. Goal: `/health` in 1.5 s.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass

import httpx2

from benchmarks.common.models import from_any_folder
from benchmarks.common.pairs import Summary
from benchmarks.common.report import Report
from benchmarks.common.serving import RunningServer, client
from server.config import DEFAULT_MODEL_ID

HEALTH_GOAL_S = 1.5
PROMPT = "a cat on a mat, digital art"


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Seconds of one start."""

    health_s: float
    """To the first answer of `/health`."""
    ready_s: float
    """To the moment when `/health` says that the model is warm."""
    picture_s: float
    """To the last byte of the first picture, asked for when it was ready."""
    phases_s: dict[str, float]
    """What the engine process tells of its own start, in order."""

    @property
    def parts(self) -> dict[str, float]:
        """What the time to the first picture is made of; the parts add up."""
        rest = self.ready_s - sum(self.phases_s.values())
        return {
            "two processes begin": rest,
            **self.phases_s,
            "first picture": self.picture_s - self.ready_s,
        }


def main() -> None:
    """Start servers, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cold_start", description=__doc__)
    parser.add_argument("--model", default=DEFAULT_MODEL_ID, help="folder or id (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="fresh starts (default: %(default)s)")
    wishes = parser.parse_args()
    report = Report("cold_start", vars(wishes))
    starts = []
    for number in range(wishes.repeats):
        print(f"start {number + 1} of {wishes.repeats}", file=sys.stderr, flush=True)
        with client() as http:
            starts.append(measured_start(wishes.model, http))
    health_s = Summary.of([start.health_s for start in starts])
    milestones = {
        "/health answers": health_s,
        "model warm": Summary.of([start.ready_s for start in starts]),
        "first picture": Summary.of([start.picture_s for start in starts]),
    }
    parts = {name: Summary.of([start.parts[name] for start in starts]) for name in starts[0].parts}
    for title, summaries in (("Seconds since the start", milestones), ("Seconds of each part", parts)):
        rows = [
            [name, f"{seconds.median:.2f}", f"{seconds.min:.2f}", f"{seconds.max:.2f}"]
            for name, seconds in summaries.items()
        ]
        report.table(title, ["", "median", "min", "max"], rows)
    report.goal("start to the first /health, median", health_s.median, HEALTH_GOAL_S, " s")
    report.finish({"since_start_s": milestones, "parts_s": parts})


def measured_start(model: str, http: httpx2.Client) -> Start:
    """Start a server, draw a picture, stop it."""
    with RunningServer.started(MODEL_ID=from_any_folder(model)) as server:
        http.get(f"{server.url}/health").raise_for_status()
        health_s = time.perf_counter() - server.began
        health = server.wait_until_ready(http)
        ready_s = time.perf_counter() - server.began
        server.draw(http, prompt=PROMPT, seed=42)
        picture_s = time.perf_counter() - server.began
    return Start(health_s=health_s, ready_s=ready_s, picture_s=picture_s, phases_s=health["engine"]["load_seconds"])


if __name__ == "__main__":
    main()
