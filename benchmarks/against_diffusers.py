"""Our engine against diffusers' pipeline, in one process, on the CPU: one request, and eight that come at once.

Same weights, float32, threads, prompts, seeds and settings (guidance 7.0, DPM++ 2M Karras); the pictures are compared,
so that equal work is. A user of diffusers has two ways to draw eight: a call each, or one call with a list. Goals: one
request is not slower; eight have at least the throughput of the better way, and finish earlier on average.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from benchmarks.common.fresh_process import WaitPolicy, in_fresh_process
from benchmarks.common.models import ChosenModel
from benchmarks.common.pairs import Summary, interleave, ratios
from benchmarks.common.prompts import unread
from benchmarks.common.report import Report
from engine.params import GenerationParams
from server.config import DEFAULT_MODEL_ID
from server.executors.messages import Configure

if TYPE_CHECKING:
    from benchmarks.common.drawn import Drawn

OURS, IN_TURN, AS_LIST = "our engine", "diffusers, a call each", "diffusers, one list"
PROMPTS = (
    "a cat on a mat, digital art",
    "a dog in a yard",
    "mountain landscape",
    "a red ball on a beach",
    "a lighthouse at night",
    "a blue boat in the sea, sunset",
    "a fox in a forest, autumn",
    "a house in the snow",
)
FIRST_SEED = 42


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """What one process measured: for each contender, one list a round of the seconds to each picture."""

    threads: int
    rows_per_call: int
    """Of our engine."""
    one: dict[str, list[list[float]]]
    several: dict[str, list[list[float]]]
    max_difference: dict[str, int]
    """Other contender -> largest difference from our pictures, in steps of 1/255."""


def main() -> None:
    """Draw in one process for each wait policy, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.against_diffusers", description=__doc__)
    parser.add_argument("--model", default=DEFAULT_MODEL_ID, metavar="FOLDER", help="or an id (default: %(default)s)")
    parser.add_argument("--size", type=int, help="pixels of each side (default: the model's own)")
    parser.add_argument("--steps", type=int, default=28, help="(default: %(default)s)")
    parser.add_argument("--requests", type=int, default=8, help="that come at once, at most 8 (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds (default: %(default)s)")
    parser.add_argument(
        "--omp-wait-policy",
        choices=("passive", "unset", "both"),
        default="unset",
        help="of both contenders' threads; passive suits machines with other work (default: %(default)s)",
    )
    asked = parser.parse_args()
    model = ChosenModel.of(parser, asked.model, asked.size)
    report = Report("against_diffusers", {**vars(asked), "height": model.height, "width": model.width})
    requests = [
        GenerationParams(
            prompt=prompt,
            seed=FIRST_SEED + number,
            num_inference_steps=asked.steps,
            guidance_scale=7.0,
            height=model.height,
            width=model.width,
        )
        for number, prompt in enumerate(PROMPTS[: asked.requests])
    ]
    policies: list[WaitPolicy] = ["passive", "unset"] if asked.omp_wait_policy == "both" else [asked.omp_wait_policy]
    results: dict[str, object] = {}
    for policy in policies:
        runs = in_fresh_process(policy, measured_runs, model.path, requests, asked.repeats)
        results[policy] = as_document(report, policy, runs)
    report.finish(results)


def measured_runs(folder: Path, requests: Sequence[GenerationParams], repeats: int) -> Runs:
    """Draw with all contenders, in turn."""
    # Torch and diffusers take seconds to import, and only the process that measures needs them.
    import numpy as np  # noqa: PLC0415 - see above
    import torch  # noqa: PLC0415 - see above

    from benchmarks.common.diffusers_pipeline import DiffusersPipeline  # noqa: PLC0415 - see above
    from benchmarks.common.engine_in_process import EngineInProcess  # noqa: PLC0415 - see above

    threads = torch.get_num_threads()
    engine = EngineInProcess(Configure(model_id=str(folder), device="cpu", dtype="float32"))
    torch.set_num_threads(threads)  # which an engine on OpenVINO has lowered for its whole process
    pipeline = DiffusersPipeline(folder)
    pipeline.use("DPM++ 2M Karras")
    short = [dataclasses.replace(params, num_inference_steps=1) for params in requests]
    pipeline.draw_in_turn(short[:1])  # the first call of a shape chooses kernels; the engine has had its warm-up, too
    pipeline.draw_as_list(short)
    one = interleave(
        {
            OURS: lambda number: engine.draw(_for_round(number, requests[:1])),
            IN_TURN: lambda number: pipeline.draw_in_turn(_for_round(number, requests[:1])),
        },
        repeats,
        "one request",
    )
    several = interleave(
        {
            OURS: lambda number: engine.draw(_for_round(repeats + number, requests)),
            IN_TURN: lambda number: pipeline.draw_in_turn(_for_round(repeats + number, requests)),
            AS_LIST: lambda number: pipeline.draw_as_list(_for_round(repeats + number, requests)),
        },
        repeats,
        f"{len(requests)} requests",
    )
    ours = np.stack(several[OURS][0].pictures).astype(int)
    return Runs(
        threads=threads,
        rows_per_call=engine.info.rows_per_call,
        one=_seconds(one),
        several=_seconds(several),
        max_difference={
            name: int(np.abs(np.stack(several[name][0].pictures) - ours).max()) for name in (IN_TURN, AS_LIST)
        },
    )


def _for_round(number: int, requests: Sequence[GenerationParams]) -> list[GenerationParams]:
    return [dataclasses.replace(params, prompt=unread(params.prompt, number)) for params in requests]


def _seconds(drawn: Mapping[str, Sequence[Drawn]]) -> dict[str, list[list[float]]]:
    return {name: [one_round.finished_s for one_round in rounds] for name, rounds in drawn.items()}


def as_document(report: Report, policy: WaitPolicy, runs: Runs) -> dict[str, object]:
    """Print what one process measured; for the JSON document."""
    latency = {name: [max(finished) for finished in rounds] for name, rounds in runs.one.items()}
    until_all = {name: [max(finished) for finished in rounds] for name, rounds in runs.several.items()}
    until_mean = {name: [fmean(finished) for finished in rounds] for name, rounds in runs.several.items()}
    num_requests = len(runs.several[OURS][0])
    title = f"OMP_WAIT_POLICY {policy}, threads: {runs.threads}"
    shares = {
        "one request": _shares(latency),
        "all finished": _shares(until_all),
        "mean completion": _shares(until_mean),
    }
    report.table(
        f"{title}: one request, seconds",
        ["", "median (min–max)", "ours / theirs"],
        [
            [name, f"{Summary.of(seconds):.3f}", _share_text(shares["one request"], name)]
            for name, seconds in latency.items()
        ],
    )
    report.table(
        f"{title}: {num_requests} requests at once, seconds; {runs.rows_per_call} rows a call of ours",
        [
            "",
            "all finished",
            "ours / theirs",
            "pictures/s",
            "mean completion",
            "ours / theirs",
            "largest pixel difference",
        ],
        [
            [
                name,
                f"{Summary.of(until_all[name]):.3f}",
                _share_text(shares["all finished"], name),
                f"{num_requests / Summary.of(until_all[name]).median:.3f}",
                f"{Summary.of(until_mean[name]):.3f}",
                _share_text(shares["mean completion"], name),
                f"{runs.max_difference[name]}/255" if name in runs.max_difference else "",
            ]
            for name in until_all
        ],
    )
    report.goal(f"{policy}: one request, ours / theirs", shares["one request"][IN_TURN].median, 1.0)
    for what in ("all finished", "mean completion"):
        for name, share in shares[what].items():
            report.goal(f"{policy}: {num_requests} requests, {what}, ours / {name}", share.median, 1.0)
    report.goal(f"{policy}: largest pixel difference", max(runs.max_difference.values()), 2, "/255")
    return {
        "threads": runs.threads,
        "rows_per_call": runs.rows_per_call,
        "one_request_s": latency,
        "all_finished_s": until_all,
        "mean_completion_s": until_mean,
        "ours_over_theirs": shares,
        "max_pixel_difference": runs.max_difference,
    }


def _shares(seconds: Mapping[str, Sequence[float]]) -> dict[str, Summary]:
    return {name: ratios(seconds[OURS], theirs) for name, theirs in seconds.items() if name != OURS}


def _share_text(shares: Mapping[str, Summary], name: str) -> str:
    return f"{shares[name]:.3f}" if name in shares else ""


if __name__ == "__main__":
    main()
