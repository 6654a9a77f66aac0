"""How long a new table takes: every sampler and noise schedule at 28 steps, probed and replayed. Goal: 60 ms at most.

A server makes a table once and keeps it; while it is made, the batch goes on.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import diffusers
import torch

from benchmarks.common.report import Report
from engine.journey import Route
from engine.journey_cache import JourneyCache
from engine.models.fake import SCHEDULER_CONFIG
from engine.samplers import SAMPLERS

STEPS = 28
GOAL_S = 0.06
SLOWEST = 10
"""Rows of the table."""


def main() -> None:
    """Make every table anew, and print the slowest."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sampler_tables", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="rounds; medians are reported (default: %(default)s)")
    options = parser.parse_args()
    report = Report("sampler_tables", {"steps": STEPS, "repeats": options.repeats})
    diffusers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)
    routes = [
        Route(sampler=sampler, noise_schedule=schedule, num_inference_steps=STEPS, eta=sampler.default_eta)
        for sampler in SAMPLERS.values()
        for schedule in sampler.noise_schedules
    ]
    for route in routes:  # the first of each class imports its module
        JourneyCache(SCHEDULER_CONFIG).get(route)
    rounds = [{route.key: _seconds(route) for route in routes} for _ in range(options.repeats)]
    medians = {
        f"{route.sampler.name} / {route.noise_schedule}": median(seconds[route.key] for seconds in rounds)
        for route in routes
    }
    slowest = sorted(medians.items(), key=lambda pair: pair[1], reverse=True)
    report.table(
        f"A new table of {STEPS} steps, the slowest of {len(routes)}",
        ["sampler / schedule", "ms"],
        [[name, f"{seconds * 1e3:.1f}"] for name, seconds in slowest[:SLOWEST]],
    )
    report.goal("slowest new table", slowest[0][1] * 1e3, GOAL_S * 1e3, " ms")
    report.finish({"median_s": median(medians.values()), "seconds": dict(slowest)})


def _seconds(route: Route) -> float:
    """With a new cache: the scheduler is built too."""
    began = time.perf_counter()
    JourneyCache(SCHEDULER_CONFIG).get(route)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
