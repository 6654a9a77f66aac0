"""How much slower a picture is beside processes that keep every core busy: a ratio to its own quiet time, in pairs.

In process, without server, each backend in a process of its own. A picture is drawn in quiet, then with one busy
process of the same priority a core, again and again; a ratio is taken of each pair. With a fair scheduler a program
that gets half of each core takes twice as long; one whose threads spin while they wait for each other takes ten times.
Goal: at most 3 times.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.common.fresh_process import in_fresh_process
from benchmarks.common.models import ChosenModel
from benchmarks.common.pairs import Summary, interleave, ratios
from benchmarks.common.prompts import unread
from benchmarks.common.report import Report
from engine.params import GenerationParams
from server.config import DEFAULT_MODEL_ID
from server.executors.messages import Configure

GOAL = 3.0
GATED_BACKEND = "openvino"
SETTLES_S = 0.2
"""Until the scheduler has spread new processes over the cores."""


def main() -> None:
    """Measure each backend, and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.contention",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", default=DEFAULT_MODEL_ID, metavar="FOLDER", help="or an id (default: %(default)s)")
    parser.add_argument("--size", type=int, help="pixels of each side (default: the model's own)")
    parser.add_argument("--steps", type=int, default=28, help="(default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="pairs (default: %(default)s)")
    parser.add_argument("--backends", default="openvino,torch", help="in turn (default: %(default)s)")
    asked = parser.parse_args()
    model = ChosenModel.of(parser, asked.model, asked.size)
    report = Report("contention", {**vars(asked), "height": model.height, "width": model.width})
    wish = GenerationParams(
        prompt="a lighthouse at night",
        seed=42,
        num_inference_steps=asked.steps,
        height=model.height,
        width=model.width,
    )
    results: dict[str, object] = {}
    rows: list[list[str]] = []
    for backend in asked.backends.split(","):
        quiet_s, busy_s = in_fresh_process("unset", measured, model.path, backend, wish, asked.repeats)
        share = ratios(busy_s, quiet_s)
        rows.append([backend, f"{Summary.of(quiet_s):.3f}", f"{Summary.of(busy_s):.3f}", f"{share:.2f}"])
        results[backend] = {"quiet_s": quiet_s, "busy_s": busy_s, "ratio": share}
        if backend == GATED_BACKEND:
            report.goal(f"{backend}: one picture beside busy processes / in quiet", share.median, GOAL)
    report.table("One picture, seconds: median (min–max)", ["", "in quiet", "beside busy processes", "ratio"], rows)
    report.finish(results)


def measured(folder: Path, backend: str, wish: GenerationParams, repeats: int) -> tuple[list[float], list[float]]:
    """Seconds of pictures in quiet, and of those beside busy processes."""
    from benchmarks.common.engine_in_process import EngineInProcess  # noqa: PLC0415 - imports torch

    engine = EngineInProcess(Configure(model_id=str(folder), device="cpu", dtype="float32", backend=backend))

    def draw(number: int) -> float:
        [seconds] = engine.draw([dataclasses.replace(wish, prompt=unread(wish.prompt, number))]).finished_s
        return seconds

    def draw_in_company(number: int) -> float:
        with busy_processes():
            return draw(repeats + number)

    draw(2 * repeats)
    found = interleave({"in quiet": draw, "beside busy processes": draw_in_company}, repeats, backend)
    return found["in quiet"], found["beside busy processes"]


@contextlib.contextmanager
def busy_processes() -> Iterator[None]:
    """As many as this process may use cores, of its priority."""
    number = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    command = [sys.executable, "-S", "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(number)]  # noqa: S603 - our own interpreter
    try:
        time.sleep(SETTLES_S)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
