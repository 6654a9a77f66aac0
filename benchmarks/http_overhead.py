"""What HTTP, queue and the way to the engine process add to the engine's own time: fake model, keep-alive client.

Every request is sent to a real server and, right after it, given to the same engine in process; both must give the same
bytes. Added time is what the caller saw less (a) the engine's phases as `Server-Timing` tells them, to 0.1 ms each;
(b) the time in process, picture file included. Goal: at most 10 ms, median.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.common.fresh_process import in_fresh_process
from benchmarks.common.pairs import percentile
from benchmarks.common.report import Report
from benchmarks.common.serving import RunningServer, client, server_timing
from engine.params import GenerationParams
from server.executors.messages import Configure
from server.picture_info.file_info import file_info

GOAL_MS = 10.0
SIZES = (64, 512)
WARM_UP_PAIRS = 3
STEPS = 28


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One request sent and given, in milliseconds."""

    over_http: float
    http_alone: float
    """`GET /livez` on the same connection, right before."""
    queue: float
    """Of `Server-Timing`: from acceptance to being handed to the engine process."""
    engine_phases: float
    """Of `Server-Timing`: encode, denoise, decode and the file, all in the engine process."""
    in_process: float

    @property
    def over_phases(self) -> float:
        """Added to the engine's phases."""
        return self.over_http - self.engine_phases

    @property
    def over_in_process(self) -> float:
        """Added to the engine in process."""
        return self.over_http - self.in_process


def main() -> None:
    """Send, draw, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.http_overhead", description=__doc__)
    parser.add_argument("--repeats", type=int, default=200, help="requests of each size (default: %(default)s)")
    options = parser.parse_args()
    report = Report("http_overhead", {**vars(options), "steps": STEPS})
    with RunningServer.started(MODEL_ID="fake") as server:
        pairs = in_fresh_process("unset", measured_pairs, server, options.repeats)
    results = {f"{size}x{size}": summarized(of_size) for size, of_size in pairs.items()}
    for title, figures in results.items():
        report.table(
            f"{title}, milliseconds a request",
            ["", "p50", "p95", "min", "max"],
            [[name, *(f"{value:.2f}" for value in of.values())] for name, of in figures.items()],
        )
        for added in ("added to phases", "added to in process"):
            report.goal(f"{title}, {added}, p50", figures[added]["p50"], GOAL_MS, " ms")
    report.finish(results)


def measured_pairs(server: RunningServer, repeats: int) -> dict[int, list[Pair]]:
    """Send and give the same requests, in turn, both sizes in every round. Size -> pairs."""
    # Torch takes seconds to import, and only the process that measures needs it.
    from benchmarks.common.engine_in_process import EngineInProcess  # noqa: PLC0415 - see above
    from server.worker.image_files import encode_image  # noqa: PLC0415 - the same for what it imports

    engine = EngineInProcess(Configure(model_id="fake", device="cpu", dtype="float32"))

    def pair(number: int, size: int) -> Pair:
        params = GenerationParams(
            prompt=f"picture {number}", seed=number, height=size, width=size, num_inference_steps=STEPS
        )
        asked = time.perf_counter()
        http.get(f"{server.url}/livez").raise_for_status()
        began = time.perf_counter()
        answer = server.draw(
            http,
            prompt=params.prompt,
            prompt_syntax=params.prompt_syntax,
            seed=params.seed,
            height=size,
            width=size,
            num_inference_steps=STEPS,
        )
        answered = time.perf_counter()
        file = encode_image(engine.draw([params]).pictures[0], "png", file_info(params, 0, "fake", "full"))
        ended = time.perf_counter()
        if answer.content != file.data:
            raise RuntimeError("server and engine drew different pictures: there is nothing to compare")
        phases = server_timing(answer)
        queue = phases.pop("queue")
        return Pair(
            over_http=1000 * (answered - began),
            http_alone=1000 * (began - asked),
            queue=queue,
            engine_phases=sum(phases.values()),
            in_process=1000 * (ended - answered),
        )

    with client() as http:
        server.wait_until_warm(http)
        for number in range(WARM_UP_PAIRS):
            for size in SIZES:
                pair(number, size)
        pairs: dict[int, list[Pair]] = {size: [] for size in SIZES}
        for number in range(WARM_UP_PAIRS, WARM_UP_PAIRS + repeats):
            for size in SIZES:
                pairs[size].append(pair(number, size))
    return pairs


def summarized(pairs: Sequence[Pair]) -> dict[str, dict[str, float]]:
    """What was measured -> its percentiles."""
    columns = {
        "over HTTP": [pair.over_http for pair in pairs],
        "GET /livez": [pair.http_alone for pair in pairs],
        "queue": [pair.queue for pair in pairs],
        "engine's phases": [pair.engine_phases for pair in pairs],
        "in process": [pair.in_process for pair in pairs],
        "added to phases": [pair.over_phases for pair in pairs],
        "added to in process": [pair.over_in_process for pair in pairs],
    }
    return {
        name: {"p50": percentile(values, 50), "p95": percentile(values, 95), "min": min(values), "max": max(values)}
        for name, values in columns.items()
    }


if __name__ == "__main__":
    main()
