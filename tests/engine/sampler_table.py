"""Every sampler's table against diffusers' own loop: `python -m tests.engine.sampler_table` writes docs/samplers.md.

The network is a small fixed function, so that what differs is the sampler alone; `test_oracle.py` compares whole
engines on real networks.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch

from engine.errors import InvalidParamsError
from engine.journey import Journey, Route, advance
from engine.journey_cache import JourneyCache
from engine.models.fake import SCHEDULER_CONFIG
from engine.probing import probe
from engine.samplers import SAMPLERS, Sampler
from engine.schedulers import make_scheduler, set_timesteps
from tests.engine.diffusers_loops import Network, diffusers_loop, fixed_network

REPOSITORY = Path(__file__).parents[2]
DOCUMENT = REPOSITORY / "docs" / "samplers.md"
COEFFICIENTS = Path(__file__).with_name("sampler_coefficients.json")
PREDICTIONS = ("epsilon", "v_prediction")
STEPS = (7, 20, 28)
MIDDLE = 0.4
"""Of the steps, where a journey is entered in the middle."""
SHAPE = (1, 4, 8, 8)
MAX_ERROR = {torch.float32: 1e-5, torch.float64: 1e-7}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One journey, compared."""

    errors: dict[torch.dtype, float]
    """Precision -> largest difference of the final latents, relative to their largest value."""
    num_calls: int
    num_slots: int


def pairs() -> list[tuple[Sampler, str]]:
    """Every sampler with every noise schedule it takes."""
    return [(sampler, schedule) for sampler in SAMPLERS.values() for schedule in sampler.noise_schedules]


def route(sampler: Sampler, schedule: str, steps: int, begin: int) -> Route:
    return Route(
        sampler=sampler, noise_schedule=schedule, num_inference_steps=steps, begin=begin, eta=sampler.default_eta
    )


def compare(wanted: Route, prediction: str) -> Comparison:
    """Follow the table and diffusers from the same start, with the same network and the same noise."""
    config = {**SCHEDULER_CONFIG, "prediction_type": prediction}
    journey = JourneyCache(config).get(wanted)
    errors = {}
    for dtype in (torch.float32, torch.float64):
        start, noise = _start(dtype)
        expected, num_drawn = diffusers_loop(wanted, config, start, noise, dtype)
        ours = table_loop(wanted, config, start, noise, dtype)
        assert num_drawn == sum(journey.draws), "the table and diffusers draw different amounts of noise"
        errors[dtype] = float((ours - expected).abs().max() / expected.abs().max())
    return Comparison(errors=errors, num_calls=journey.num_calls, num_slots=journey.num_slots)


def _start(dtype: torch.dtype) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """An image's latents, and all the noise that a journey may need."""
    generator = torch.Generator().manual_seed(11)
    numbers = torch.randn(80, *SHAPE, generator=generator, dtype=torch.float64).to(dtype)
    return numbers[0], list(numbers[1:])


def table_loop(
    wanted: Route,
    config: dict[str, Any],
    image: torch.Tensor,
    noise: list[torch.Tensor],
    dtype: torch.dtype,
    network: Network | None = None,
) -> torch.Tensor:
    """Draw along the table; the first noise is the initial one."""
    if dtype == torch.float32:
        journey = JourneyCache(config).get(wanted)
    else:
        scheduler = make_scheduler(wanted.sampler, wanted.noise_schedule, config)
        timesteps = set_timesteps(
            scheduler, wanted.sampler, wanted.noise_schedule, wanted.num_inference_steps, wanted.begin
        )
        journey = probe(scheduler, timesteps, wanted)
    return follow(journey, image if wanted.begin else None, noise, network or fixed_network(dtype))


def follow(journey: Journey, image: torch.Tensor | None, noise: list[torch.Tensor], network: Network) -> torch.Tensor:
    """Draw along a journey, from pure noise or from a noisy image; the first noise is the initial one."""
    draws = iter(noise)
    first, (keep, add) = next(draws), journey.entry_blend
    slots = torch.zeros(1, journey.num_slots, *SHAPE[1:], dtype=first.dtype)
    slots[:, 0] = journey.initial_noise_scale * first if image is None else keep * image + add * first
    for call, draw in enumerate(journey.draws):
        output = network(slots[:, 0] * journey.input_scales[call], journey.timesteps[call])
        slots = advance(slots, output, next(draws) if draw else None, journey.matrices[call : call + 1])
    return slots[:, 0]


# --- coefficients, to notice a library that changes them --------------------------------------------------------------


def fingerprint(journey: Journey) -> list[float]:
    """A few numbers that change if any timestep, scale or coefficient of a table does.

    The last bit of a processor's logarithm decides two things in diffusers, and neither shows here: whether the highest
    timestep of an exponential or beta schedule, 998.9999997 or 999.0 before it is cut to a whole number, becomes 998 or
    999; and whether a coefficient that should be 0 (DPM++ 2S over exponential levels) is 0 or 1e-7, without or with a
    slot of its own. So the coefficients are taken by the latents that they make of fixed numbers.
    """
    exact = journey.to(torch.float64)
    # Of one sign: what a coefficient changes does not average away.
    noise = [number.abs() for number in _start(torch.float64)[1]]
    outputs = iter(noise[::-1])
    seen = []

    def network(latents: torch.Tensor, _timestep: torch.Tensor) -> torch.Tensor:
        seen.append(latents)
        return next(outputs)

    seen.append(follow(exact, None, noise, network))
    timesteps = exact.timesteps.clamp(max=998)
    return [_total(numbers, wave) for numbers in (timesteps, exact.input_scales, *seen) for wave in (0.0, 0.5)]


def _total(numbers: torch.Tensor, wave: float) -> float:
    sizes = numbers.abs().flatten()
    weights = 1 + wave * torch.cos(torch.arange(len(sizes), dtype=torch.float64))
    return float(f"{(sizes * weights).sum():.9g}")


# --- the document -----------------------------------------------------------------------------------------------------


def write_document() -> None:
    lines = [_HEAD]
    worst = dict.fromkeys(MAX_ERROR, 0.0)
    for sampler, schedule in pairs():
        for prediction in PREDICTIONS:
            line, errors = _row(sampler, schedule, prediction)
            lines.append(line)
            worst = {dtype: max(worst[dtype], error) for dtype, error in errors.items()}
            sys.stdout.write(line + "\n")
    lines.append(f"\nWorst of all: float32 {worst[torch.float32]:.1e}, float64 {worst[torch.float64]:.1e}.\n")
    DOCUMENT.write_text("\n".join(lines))


def _row(sampler: Sampler, schedule: str, prediction: str) -> tuple[str, dict[torch.dtype, float]]:
    """A line, and the worst error in each precision."""
    cells, calls, slots = [], [], 0
    worst = dict.fromkeys(MAX_ERROR, 0.0)
    for begin_share in (0.0, MIDDLE):
        for steps in STEPS:
            try:
                found = compare(route(sampler, schedule, steps, int(steps * begin_share)), prediction)
            except InvalidParamsError as error:
                cells.append(f"refused: {error}")
                continue
            cells.append(f"{found.errors[torch.float32]:.0e}")
            slots = max(slots, found.num_slots)
            worst = {dtype: max(worst[dtype], error) for dtype, error in found.errors.items()}
            if not begin_share:
                calls.append(str(found.num_calls))
    name = sampler.name + (" ²" if sampler.is_own else " ¹" if sampler.is_cut_when_entered else "")
    row = [name, schedule, prediction.removesuffix("_prediction"), str(slots), ", ".join(calls), *cells]
    return "| " + " | ".join([*row, f"{worst[torch.float64]:.0e}"]) + " |", worst


_HEAD = f"""# Samplers

Written by `make sampler-table` with diffusers {diffusers.__version__} and torch {torch.__version__.split("+")[0]}.

Every row compares our table (see [architecture](architecture.md)) with diffusers' own loop: same network, same noise,
same start. *Start* is from pure noise, *middle* enters after {MIDDLE:.0%} of the steps, as image to image does. The
figures are the largest difference of the final latents relative to their largest value; *float64* is the worst of the
six journeys in double precision, where diffusers' own casts to float32 inside a step are taken out of the comparison.
*Slots* are the remembered tensors of one picture, *calls* the model calls at {", ".join(map(str, STEPS))} steps.

* DPM++ SDE draws its Brownian path as two independent increments a step instead of a tree: the same law, other bits
  than diffusers gives for a seed. Both sides of its rows are given the same path.
* ¹ Entered in the middle by cutting the schedule: diffusers' own way in takes the sampler's order from steps that were
  never taken and leaves noise in the picture. Both sides of these rows are cut.
* ² diffusers lacks it: the table is our own (`engine/slopes.py`), along the noise levels of diffusers' Euler, and is
  compared with the loop of k-diffusion (DPM++ 2S a, DPM fast), AUTOMATIC1111 (Restart) or Forge and ComfyUI (HeunPP2,
  IPNDM, IPNDM V), written plainly in `tests/engine/own_sampler_loops.py`. It is entered by cutting the schedule, as
  there. IPNDM and IPNDM V end as in ComfyUI: the last step is the denoised picture. DPM fast ends at the model's lowest
  noise level, as there, also in image to image, where AUTOMATIC1111 ends at the schedule's. Restart goes back up from
  20 steps on, and never from level 0, as AUTOMATIC1111 does with trailing levels at 20 steps.
* Two of AUTOMATIC1111's samplers cannot be tables. DDIM CFG++ reads the prediction of the negative prompt beside the
  guided one, and a table has one prediction a call. DPM adaptive chooses its steps by the picture.
* AYS is published for ten steps; other counts are interpolated by us, and both sides visit the same timesteps.
* Pairs that are not listed do not exist, and a request for one is refused with the ones that do. In diffusers Euler a,
  DDIM, DDPM and PNDM have no Karras, exponential or beta levels; DPM++ 2S and 3S have no spacings; Lu's levels are the
  multistep DPM++'s alone; AYS needs a class that takes a list of timesteps; LCM and TCD visit the timesteps they were
  distilled for, whatever the spacing. DPM fast chooses its own levels. Flow matching is not Stable Diffusion 1.x.

| sampler | schedule | prediction | slots | calls | start 7 | 20 | 28 | middle 7 | 20 | 28 | float64 |
|---|---|---|---|---|---|---|---|---|---|---|---|"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--coefficients", action="store_true", help="write the fingerprints that a test compares")
    diffusers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)
    if parser.parse_args().coefficients:
        found = {
            f"{sampler.name} / {schedule}": fingerprint(
                JourneyCache(SCHEDULER_CONFIG).get(route(sampler, schedule, 7, 0))
            )
            for sampler, schedule in pairs()
        }
        lines = (f"{json.dumps(name)}: {json.dumps(numbers)}" for name, numbers in found.items())
        COEFFICIENTS.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    else:
        write_document()


if __name__ == "__main__":
    main()
