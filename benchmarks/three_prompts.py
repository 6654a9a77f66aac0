"""The specification's table on this machine: its three prompts, plain diffusers against us over HTTP.

Its Phase 1 was diffusers' pipeline as it comes: PNDM, 50 steps. Phase 2 is the server: DPM++ 2M Karras, 28 steps,
guidance 7.0, HTTP and the PNG file included (diffusers writes none). Fewer steps are faster whoever takes them, so
diffusers with PNDM at 28 steps stands beside it. The specification measured 2.62 s against 2.06 s with Stable Diffusion
1.5 on an RTX 4070 SUPER.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from statistics import fmean, median

from benchmarks.common.fresh_process import in_fresh_process
from benchmarks.common.models import ChosenModel, from_any_folder
from benchmarks.common.pairs import interleave, ratios
from benchmarks.common.prompts import unread
from benchmarks.common.report import Report
from benchmarks.common.serving import RunningServer, client
from engine.params import GenerationParams
from server.config import DEFAULT_MODEL_ID

PHASE_1, SAME_STEPS, PHASE_2 = "Phase 1: PNDM, 50 steps", "PNDM, 28 steps", "Phase 2: over HTTP, 28 steps"
STEPS = {PHASE_1: 50, SAME_STEPS: 28, PHASE_2: 28}
PROMPTS = (
    "a cat sitting on a mat, digital art style, detailed",
    "a dog in a yard, digital art style, detailed",
    "a mountain landscape, digital art style, detailed",
)
NEGATIVE_PROMPT = "blurry, low quality, distorted"
FIRST_SEED = 42


def main() -> None:
    """Draw with a server and with diffusers in a process of its own, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.three_prompts", description=__doc__)
    parser.add_argument("--model", default=DEFAULT_MODEL_ID, help="folder or id (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--size", type=int, help="pixels of each side (default: the model's own)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds (default: %(default)s)")
    asked = parser.parse_args()
    model = ChosenModel.of(parser, asked.model, asked.size)
    report = Report("three_prompts", {**vars(asked), "height": model.height, "width": model.width})
    settings = {"MODEL_ID": from_any_folder(asked.model), "DEVICE": asked.device, "REQUEST_TIMEOUT": "86400"}
    with RunningServer.started(**settings) as server, client() as http:
        health = server.wait_until_warm(http)
        info = health["generator_info"]
        seconds = in_fresh_process(
            "unset", measured_seconds, server, model, info["device"], info["dtype"], asked.repeats
        )
    where = f"{health['engine']['device_name']}, {info['dtype']}, {model.width}x{model.height}"
    report.table(
        f"{where}, median of {asked.repeats} rounds",
        ["Test", *STEPS, "Improvement on Phase 1", "Improvement at 28 steps"],
        [
            row(f"Image {number}", {name: median(of) for name, of in image.items()})
            for number, image in enumerate(seconds, 1)
        ]
        + [row("Average", {name: fmean(median(image[name]) for image in seconds) for name in STEPS})],
    )
    shares = {
        name: ratios(*([each for image in seconds for each in image[of]] for of in (PHASE_2, name)))
        for name in (PHASE_1, SAME_STEPS)
    }
    for name, share in shares.items():
        report.goal(f"Phase 2 / {name}, median of pairs", share.median, 1.0)
    report.finish({"where": where, "prompts": PROMPTS, "seconds": seconds, "ours_over_theirs": shares})


def measured_seconds(
    server: RunningServer, model: ChosenModel, device: str, dtype: str, repeats: int
) -> list[dict[str, list[float]]]:
    """One dictionary a prompt: contender -> seconds, one a round."""
    # Torch and diffusers take seconds to import, and only the process that measures needs them.
    from benchmarks.common.diffusers_pipeline import DiffusersPipeline  # noqa: PLC0415 - see above

    pipeline = DiffusersPipeline(model.path, device=device, dtype=dtype)
    pipeline.use("PNDM")
    with client() as http:

        def with_diffusers(params: GenerationParams) -> None:
            pipeline.draw_in_turn([params])

        def over_http(params: GenerationParams) -> None:
            server.draw(
                http,
                prompt=params.prompt,
                negative_prompt=params.negative_prompt,
                num_inference_steps=params.num_inference_steps,
                guidance_scale=params.guidance_scale,
                height=params.height,
                width=params.width,
                seed=params.seed,
            )

        def timed(name: str, draw: Callable[[GenerationParams], None], image: int) -> Callable[[int], float]:
            def run(number: int) -> float:
                params = GenerationParams(
                    prompt=unread(PROMPTS[image], number),
                    negative_prompt=NEGATIVE_PROMPT,
                    num_inference_steps=STEPS[name],
                    guidance_scale=7.0,
                    height=model.height,
                    width=model.width,
                    seed=FIRST_SEED + image,
                )
                began = time.perf_counter()
                draw(params)
                return time.perf_counter() - began

            return run

        draws = {PHASE_1: with_diffusers, SAME_STEPS: with_diffusers, PHASE_2: over_http}
        for draw in (with_diffusers, over_http):  # the first picture chooses kernels
            timed(SAME_STEPS, draw, 0)(repeats)
        return [
            interleave({name: timed(name, draw, image) for name, draw in draws.items()}, repeats, f"image {image + 1}")
            for image in range(len(PROMPTS))
        ]


def row(title: str, seconds: Mapping[str, float]) -> list[str]:
    """A line in the shape of the specification's table."""
    times = [f"{seconds[name]:.2f} s" for name in STEPS]
    return [title, *times, *(improvement(seconds[name], seconds[PHASE_2]) for name in (PHASE_1, SAME_STEPS))]


def improvement(before_s: float, after_s: float) -> str:
    """In the specification's words."""
    gain_s = before_s - after_s
    return f"{abs(gain_s):.2f} s {'faster' if gain_s >= 0 else 'slower'} ({abs(gain_s) / before_s:.1%})"


if __name__ == "__main__":
    main()
