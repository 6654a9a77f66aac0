"""How much memory gateway and engine take at most: when ready, after pictures in turn, and after a burst of requests.

Peaks of resident memory (VmHWM), as Linux counts them for each process. Goal: the gateway stays below 120 MB.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor

from benchmarks.common.models import from_any_folder
from benchmarks.common.report import Report
from benchmarks.common.serving import RunningServer, client
from server.config import DEFAULT_MODEL_ID

GATEWAY_GOAL_MB = 120.0
PROMPT = "a lighthouse at night, digital art"


def main() -> None:
    """Draw, look, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--model", default=DEFAULT_MODEL_ID, help="folder, id or fake (default: %(default)s)")
    parser.add_argument("--pictures", type=int, default=8, help="one after the other (default: %(default)s)")
    parser.add_argument("--burst", type=int, default=16, help="requests at once, at most 100 (default: %(default)s)")
    options = parser.parse_args()
    report = Report("memory", vars(options))
    peaks = measured_peaks(options.model, options.pictures, options.burst)
    report.table(
        "Peak of resident memory so far, MB (10^6 bytes)",
        ["", "gateway", "engine"],
        [[moment, f"{gateway:.1f}", f"{engine:.1f}"] for moment, (gateway, engine) in peaks.items()],
    )
    report.goal("gateway's peak", max(gateway for gateway, _ in peaks.values()), GATEWAY_GOAL_MB, " MB")
    report.finish({moment: {"gateway_mb": gateway, "engine_mb": engine} for moment, (gateway, engine) in peaks.items()})


def measured_peaks(model: str, pictures: int, burst: int) -> dict[str, tuple[float, float]]:
    """Moment -> peaks so far of gateway and engine, in MB."""
    peaks: dict[str, tuple[float, float]] = {}
    # Nobody is to be timed out: the last of a burst waits for all others.
    with RunningServer.started(MODEL_ID=from_any_folder(model), REQUEST_TIMEOUT="86400") as server, client() as http:

        def draw(number: int) -> None:
            print(f"picture {number + 1} of {pictures + burst}", file=sys.stderr, flush=True)
            server.draw(http, prompt=PROMPT, seed=number)

        def note(moment: str) -> None:
            gateway, engine = server.peak_memory_bytes()
            peaks[moment] = (gateway / 1e6, engine / 1e6)

        server.wait_until_ready(http)
        note("ready")
        for number in range(pictures):
            draw(number)
        note(f"{pictures} pictures in turn")
        with ThreadPoolExecutor(burst) as callers:
            list(callers.map(draw, range(pictures, pictures + burst)))
        note(f"{burst} requests at once")
    return peaks


if __name__ == "__main__":
    main()
