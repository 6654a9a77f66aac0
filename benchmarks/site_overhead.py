"""What the site adds to drawing: from sending the form to holding the picture, with the fake engine.

The whole site as `./run.sh site` starts it (SQLite, database runner). One visitor: sends the form, follows to the page,
listens to its events, fetches the picture. Then ten at once: when each of them first sees a step taken. Goals: p50 at
most 500 ms for one; every one of the ten within 2 s.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.common.pairs import percentile
from benchmarks.common.report import Report
from tests.site.visitor import Visitor
from tests.site.whole_site import whole_site

GOAL_MS = 500.0
GOAL_FIRST_STEP_MS = 2000.0
AT_ONCE = 10


def main() -> None:
    """Start the site, dream, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.site_overhead", description=__doc__)
    parser.add_argument("--repeats", type=int, default=30, help="dreams of the one visitor (default: %(default)s)")
    options = parser.parse_args()
    report = Report("site_overhead", vars(options))
    with tempfile.TemporaryDirectory() as folder, whole_site(Path(folder), MODEL_ID="fake-engine:1") as site:
        # Not more than may sign up from one address.
        visitors = [Visitor(site.url, f"visitor{number}") for number in range(AT_ONCE)]
        visitors[0].dream()
        visits = [visitors[0].dream() for _ in range(options.repeats)]
        with ThreadPoolExecutor(AT_ONCE) as threads:
            at_once = list(threads.map(lambda visitor: visitor.dream(), visitors))
        for visitor in visitors:
            visitor.close()
    figures = {
        "first step": summarized([visit.first_step_s for visit in visits]),
        "picture": summarized([visit.picture_s for visit in visits]),
        "ten at once, first step": summarized([visit.first_step_s for visit in at_once]),
        "ten at once, picture": summarized([visit.picture_s for visit in at_once]),
    }
    report.table(
        "milliseconds from the form",
        ["", "p50", "p95", "min", "max"],
        [[name, *(f"{value:.0f}" for value in of.values())] for name, of in figures.items()],
    )
    report.goal("submit to picture, p50", figures["picture"]["p50"], GOAL_MS, " ms")
    report.goal("ten at once, slowest first step", figures["ten at once, first step"]["max"], GOAL_FIRST_STEP_MS, " ms")
    report.finish(figures)


def summarized(seconds: Sequence[float]) -> dict[str, float]:
    """Percentiles, in milliseconds."""
    values = [1000 * value for value in seconds]
    return {"p50": percentile(values, 50), "p95": percentile(values, 95), "min": min(values), "max": max(values)}


if __name__ == "__main__":
    main()
