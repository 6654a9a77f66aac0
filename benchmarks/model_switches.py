"""Whether memory grows when an engine changes between two models again and again, for each backend.

A server with room for one of two small random models draws with them in turn. The engine's resident memory is read
after each picture; its slope is a straight line through all but the first third. Goal: at most 1 MiB in 100 changes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.common.report import Report
from benchmarks.common.serving import RunningServer, client
from engine.models.random_model import make_random_model
from engine.models.sizes import memory_bytes

GOAL_MIB = 1.0
BACKENDS = ("torch", "openvino")


def main() -> None:
    """Draw, look, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.model_switches", description=__doc__)
    parser.add_argument("--switches", type=int, default=300, help="changes of model (default: %(default)s)")
    parser.add_argument("--backend", choices=BACKENDS, action="append", help="default: all")
    options = parser.parse_args()
    report = Report("model_switches", vars(options))
    memory = {backend: resident_mib(backend, options.switches) for backend in options.backend or BACKENDS}
    slopes = {backend: slope_per_100(values) for backend, values in memory.items()}
    report.table(
        "Resident memory of the engine, MiB",
        ["", "first picture", f"after {options.switches // 3}", f"after {options.switches}", "slope in 100 changes"],
        [
            [
                backend,
                *(f"{values[at]:.1f}" for at in (0, options.switches // 3, options.switches - 1)),
                f"{slopes[backend]:.2f}",
            ]
            for backend, values in memory.items()
        ],
    )
    for backend, slope in slopes.items():
        report.goal(f"{backend}: slope in 100 changes", slope, GOAL_MIB, " MiB")
    report.finish(
        {"slope_mib_per_100": slopes, "every_20th_mib": {name: values[::20] for name, values in memory.items()}}
    )


def resident_mib(backend: str, switches: int) -> list[float]:
    """The engine's memory after each picture, of two models in turn."""
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder, "first"), Path(folder, "models", "second")
        for seed, path in enumerate((first, second)):
            make_random_model(path, seed=seed)
        room_mib = -(-memory_bytes(first, 4) // 2**20)
        settings = {
            "MODEL_ID": str(first),
            "MODELS_DIR": str(second.parent),
            "DEVICE_MEMORY_BUDGET": str(room_mib),
            "BACKEND": backend,
        }
        with RunningServer.started(**settings) as server, client() as http:
            server.wait_until_ready(http)
            values = []
            for number in range(switches):
                model = {"model": "second"} if number % 2 else {}
                server.draw(http, prompt="a cat", seed=number, num_inference_steps=2, width=64, height=64, **model)
                values.append(server.engine_resident_bytes() / 2**20)
                if number % 50 == 0:
                    print(f"{backend}: {number} of {switches} changes", file=sys.stderr, flush=True)
    return values


def slope_per_100(values: list[float]) -> float:
    """Growth in 100 values of a straight line through all but the first third."""
    settled = values[len(values) // 3 :]
    return 100 * statistics.linear_regression(range(len(settled)), settled).slope


if __name__ == "__main__":
    main()
