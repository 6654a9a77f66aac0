"""Two models under load on an engine with room for one: what the changes cost, and how long a model waits at most.

The same number of jobs comes in at once, all for one model, and half for another that is exactly as fast. Goals: at
least 0.8 of one model's throughput; and no model that jobs wait for draws nothing for longer than a turn (10 seconds,
or six loads), the end of the other's pictures, the load and its own first picture.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.common.report import Report
from benchmarks.common.serving import RunningServer, client
from engine.models.locate import locate
from engine.models.sizes import memory_bytes
from server.config import DEFAULT_MODEL_ID
from server.jobs.model_turns import turn_seconds

LEAST_SHARE = 0.8
LOAD_AND_PICTURE_S = 5.0
"""For the end of the other's pictures, the load and the own first picture, on two cores."""
OTHER = "other"


def main() -> None:
    """Draw, look, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.two_models", description=__doc__)
    parser.add_argument("--model", default=DEFAULT_MODEL_ID, help="folder (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=60, help="in all, one picture each (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="of both contenders (default: %(default)s)")
    options = parser.parse_args()
    report = Report("two_models", vars(options))
    alone, both, stretches = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        # The second model is the first one under another name.
        (Path(folder) / OTHER).symlink_to(Path(options.model).resolve(), target_is_directory=True)
        path = locate(options.model).path
        if path is None:
            parser.error("--model must have weights")
        room_mib = -(-memory_bytes(path, 4) // 2**20)
        settings = {"MODEL_ID": str(path.resolve()), "MODELS_DIR": folder, "DEVICE_MEMORY_BUDGET": str(room_mib)}
        with RunningServer.started(REQUEST_TIMEOUT="86400", **settings) as server, client() as http:
            server.wait_until_warm(http)
            for number in range(options.rounds):
                print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
                alone.append(max(finished_at(server, options.jobs, ("",))[""]))
                finished = finished_at(server, options.jobs, ("", OTHER))
                both.append(max(max(times) for times in finished.values()))
                stretches.append(max(longest_stretch(times) for times in finished.values()))
    shares = [one / two for one, two in zip(alone, both, strict=True)]
    report.table(
        f"{options.jobs} jobs at once, seconds until all are done",
        ["round", "one model", "two in turn", "throughput, two / one", "longest without a picture of one, s"],
        [
            [str(number), f"{one:.1f}", f"{two:.1f}", f"{share:.2f}", f"{stretch:.1f}"]
            for number, (one, two, share, stretch) in enumerate(zip(alone, both, shares, stretches, strict=True), 1)
        ],
    )
    report.goal("time of two models / of one", 1 / statistics.median(shares), 1 / LEAST_SHARE)
    report.goal("longest wait of a model", max(stretches), turn_seconds(0) + LOAD_AND_PICTURE_S, " s")
    report.finish({"one_s": alone, "two_s": both, "longest_wait_s": stretches})


def finished_at(server: RunningServer, jobs: int, models: tuple[str, ...]) -> dict[str, list[float]]:
    """Model -> seconds after which each of its jobs was done; all come in at once, the models by turns."""
    finished: dict[str, list[float]] = {model: [] for model in models}
    began = time.perf_counter()

    def draw(number: int) -> None:
        model = models[number % len(models)]
        with client() as http:
            server.draw(http, prompt="a fox in the snow", seed=number, **({"model": model} if model else {}))
        finished[model].append(time.perf_counter() - began)

    with ThreadPoolExecutor(jobs) as callers:
        list(callers.map(draw, range(jobs)))
    return finished


def longest_stretch(times: list[float]) -> float:
    """Between two pictures of a model, or before its first: jobs for it waited all the time."""
    ordered = [0.0, *sorted(times)]
    return max(later - earlier for earlier, later in itertools.pairwise(ordered))


if __name__ == "__main__":
    main()
