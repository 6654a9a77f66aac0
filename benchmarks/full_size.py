"""Stable Diffusion 1.5 in full size on this CPU: seconds a step and peak memory, for each backend and for diffusers.

The weights are random: neither figure depends on them. Each contender has a process of its own, one after the other,
with as many threads as cores. A step is a guided one, two rows; its seconds are the difference of a long and a short
picture, so that prompts and decoding do not count. The share of the limit is the step's arithmetic over what this CPU
multiplies in float32 in that time.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common.fresh_process import in_fresh_process
from benchmarks.common.report import Report
from engine.params import GenerationParams
from server.executors.messages import Configure

DIFFUSERS = "diffusers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was measured of one contender."""

    step_s: float
    """Median."""
    peak_mib: float
    """Resident memory of its process at most, weights that lie in files included."""
    start_s: float
    """To load, with everything converted."""
    conversion_s: float | None = None
    """Of the first start of all, in a process of its own."""
    conversion_peak_mib: float | None = None


def main() -> None:
    """Make a model, measure in turn, and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.full_size", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="folder (default: one of random weights, 2.1 GB, made and deleted)")
    parser.add_argument("--arch", default="sd15", help="of the random weights; tiny: to try (default: %(default)s)")
    parser.add_argument("--size", type=int, default=512, help="pixels of each side (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=3, help="that are timed, a picture (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="pictures (default: %(default)s)")
    parser.add_argument("--contenders", default="torch,openvino,diffusers", help="(default: %(default)s)")
    asked = parser.parse_args()
    report = Report("full_size", {name: str(value) for name, value in vars(asked).items() if value is not None})
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.model or Path(temporary) / "model"
        if asked.model is None:
            print("writing random weights", file=sys.stderr, flush=True)
            in_fresh_process("unset", make_model, folder, asked.arch)
        found: dict[str, Found] = {}
        least_s: list[float] = []
        for name in asked.contenders.split(","):
            print(name, file=sys.stderr, flush=True)
            cache = Path(temporary) / "cache"
            conversion = in_fresh_process("unset", convert, folder, cache) if name == "openvino" else (None, None)
            step_s, peak_mib, start_s = in_fresh_process("unset", measured, folder, name, cache, asked)
            found[name] = Found(
                step_s=step_s,
                peak_mib=peak_mib,
                start_s=start_s,
                conversion_s=conversion[0],
                conversion_peak_mib=conversion[1],
            )
            least_s.append(in_fresh_process("unset", least_step_seconds, folder, asked.size))
    floor_s = min(least_s)  # a limit is what the machine can do when nothing else uses it
    report.table(
        f"A guided step of {asked.size}x{asked.size}",
        ["", "s a step", "share of the limit", "peak MiB", "load s", "conversion s", "conversion peak MiB"],
        [
            [
                name,
                f"{one.step_s:.3g}",
                f"{floor_s / one.step_s:.2f}",
                f"{one.peak_mib:.0f}",
                f"{one.start_s:.1f}",
                *("" if value is None else f"{value:.1f}" for value in (one.conversion_s, one.conversion_peak_mib)),
            ]
            for name, one in found.items()
        ],
    )
    if DIFFUSERS in found:
        for name, one in found.items():
            if name != DIFFUSERS:
                report.goal(f"a step, {name} / diffusers", one.step_s / found[DIFFUSERS].step_s, 1.0)
    report.finish({"contenders": found, "least_step_s": floor_s})


def make_model(folder: Path, arch: str) -> None:
    """Write random weights, in float16: what is read is float32 whatever the file's."""
    import torch  # noqa: PLC0415 - in the process that measures

    from engine.models.random_model import make_random_model  # noqa: PLC0415 - the same

    make_random_model(folder, arch=arch, seed=1, dtype=torch.float16)  # type: ignore[arg-type] # argparse allows only its names


def convert(folder: Path, cache: Path) -> tuple[float, float]:
    """Seconds and peak memory (MiB) of the conversion for OpenVINO."""
    from engine.backends.conversion_process import ConversionProcess  # noqa: PLC0415 - in the process that measures

    began = time.perf_counter()
    ConversionProcess(folder, cache).wait(max_silence_s=3600)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return time.perf_counter() - began, peak


def measured(folder: Path, name: str, cache: Path, asked: argparse.Namespace) -> tuple[float, float, float]:
    """Seconds a step, peak memory (MiB), seconds to load; of this process."""
    began = time.perf_counter()
    draw = _diffusers(folder) if name == DIFFUSERS else _engine(folder, name, cache)
    start_s = time.perf_counter() - began

    def seconds(steps: int, number: int) -> float:
        began = time.perf_counter()
        draw(
            GenerationParams(
                prompt="a lighthouse at night" + " " * number,
                seed=number,
                num_inference_steps=steps,
                height=asked.size,
                width=asked.size,
            )
        )
        return time.perf_counter() - began

    seconds(2, 0)  # kernels are chosen, weights arranged
    # Two steps are the fewest of the default sampler with a table of its own.
    steps_s = [
        (seconds(2 + asked.steps, number) - seconds(2, number)) / asked.steps for number in range(1, 1 + asked.repeats)
    ]
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return statistics.median(steps_s), peak_mib, start_s


def _engine(folder: Path, backend: str, cache: Path) -> Callable[[GenerationParams], object]:
    from benchmarks.common.engine_in_process import EngineInProcess  # noqa: PLC0415 - in the process that measures

    engine = EngineInProcess(
        Configure(
            model_id=str(folder),
            device="cpu",
            dtype="float32",
            backend=backend,
            cache_folder=str(cache),
            warms_up_first=False,
        )
    )
    return lambda params: engine.draw([params])


def _diffusers(folder: Path) -> Callable[[GenerationParams], object]:
    from benchmarks.common.diffusers_pipeline import DiffusersPipeline  # noqa: PLC0415 - in the process that measures

    pipeline = DiffusersPipeline(folder)
    pipeline.use("DPM++ 2M Karras")
    return lambda params: pipeline.draw_in_turn([params])


def least_step_seconds(folder: Path, size: int) -> float:
    """A guided step's arithmetic over this CPU's rate of multiplying large matrices."""
    import torch  # noqa: PLC0415 - in the process that measures

    from benchmarks.device.limits import PictureFlop, matrix_rate  # noqa: PLC0415 - the same

    rate = matrix_rate(torch.device("cpu"), torch.float32, size=2048, calls=5)
    return 2 * PictureFlop(folder, height=size, width=size).unet_row / rate


if __name__ == "__main__":
    main()
