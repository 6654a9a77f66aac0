"""How many model calls eight requests cost together, and how many one after the other: fake model, 16 rows a call.

Counts, not times: it comes out the same on every machine. Goal: at most a third.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence

from benchmarks.common.report import Report
from engine.engine import Engine
from engine.models.fake import FakeModel
from engine.params import GenerationParams

ROWS_PER_CALL = 16
ARRIVES_EVERY = 3
"""Steps between two arrivals, where requests come one by one."""

ALIKE = [GenerationParams(prompt=f"picture {number}", seed=number, height=64, width=64) for number in range(8)]
MIXED = [
    dataclasses.replace(
        params, num_inference_steps=steps, guidance_scale=guidance_scale, sampler=sampler, noise_schedule=noise
    )
    for params, steps, guidance_scale, (sampler, noise) in zip(
        ALIKE,
        (20, 22, 24, 26, 28, 30, 32, 34),
        (1.0, 5.0, 7.0, 7.5, 1.0, 9.0, 3.0, 7.0),
        [("DPMSolver++", "karras"), ("Euler", "default"), ("Euler a", "default"), ("DDIM", "default")] * 2,
        strict=True,
    )
]
SCENARIOS: Mapping[str, tuple[Sequence[GenerationParams], int]] = {
    "alike, all at once": (ALIKE, 0),
    "mixed steps, guidance and samplers, all at once": (MIXED, 0),
    f"alike, one joins every {ARRIVES_EVERY} steps": (ALIKE, ARRIVES_EVERY),
}
"""Name -> requests, and the steps between two arrivals."""


def main() -> None:
    """Count, and print."""
    argparse.ArgumentParser(prog="python -m benchmarks.model_calls", description=__doc__).parse_args()
    report = Report("model_calls", {"rows_per_call": ROWS_PER_CALL, "requests": len(ALIKE)})
    counts = {name: (in_turn(requests), together(requests, every)) for name, (requests, every) in SCENARIOS.items()}
    report.table(
        "Model calls of eight requests",
        ["requests", "in turn", "together", "share"],
        [[name, str(turn), str(both), f"{both / turn:.3f}"] for name, (turn, both) in counts.items()],
    )
    for name, (turn, both) in counts.items():
        report.goal(f"calls together / in turn, {name}", both / turn, 1 / 3)
    report.finish({name: {"in_turn": turn, "together": both} for name, (turn, both) in counts.items()})


def in_turn(requests: Sequence[GenerationParams]) -> int:
    """Model calls where each request is sent when the one before it is finished."""
    model = FakeModel()
    engine = Engine(model, rows_per_call=ROWS_PER_CALL)
    for params in requests:
        engine.add(engine.prepare(params.prompt, params))
        while engine.has_work:
            engine.step()
    return model.num_calls


def together(requests: Sequence[GenerationParams], arrives_every: int) -> int:
    """Model calls where the requests come while others are drawn, `arrives_every` calls apart."""
    model = FakeModel()
    engine = Engine(model, rows_per_call=ROWS_PER_CALL)
    waiting = list(requests)
    while waiting or engine.has_work:
        while waiting and model.num_calls >= arrives_every * (len(requests) - len(waiting)):
            params = waiting.pop(0)
            engine.add(engine.prepare(params.prompt, params))
        engine.step()
    return model.num_calls


if __name__ == "__main__":
    main()
