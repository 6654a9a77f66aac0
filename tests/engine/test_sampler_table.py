"""Every sampler's table equals diffusers' own loop; the full comparison is docs/samplers.md."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace

import diffusers.schedulers.scheduling_euler_ancestral_discrete
import pytest
import torch

from engine.errors import InvalidParamsError
from engine.journey_cache import JourneyCache
from engine.models.fake import SCHEDULER_CONFIG
from engine.probing import probe
from engine.samplers import SAMPLERS, Sampler
from engine.schedulers import make_scheduler, set_timesteps
from tests.engine.sampler_table import (
    COEFFICIENTS,
    DOCUMENT,
    MAX_ERROR,
    PREDICTIONS,
    compare,
    fingerprint,
    pairs,
    route,
    table_loop,
)

ROUNDING = 1e-4
"""Relative: twice what half a unit in the last place of every noise level makes of the worst fingerprint."""

by_sampler = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS.keys())


@by_sampler
@pytest.mark.parametrize(("prediction", "begin"), [("epsilon", 0), ("v_prediction", 2)])
def test_the_table_follows_diffusers_from_the_start_and_from_the_middle(sampler: Sampler, prediction: str, begin: int):
    for schedule in sampler.noise_schedules:
        found = compare(route(sampler, schedule, 7, begin), prediction)
        for dtype, error in found.errors.items():
            assert error <= MAX_ERROR[dtype], f"{sampler.name} / {schedule}, {dtype}"


@pytest.mark.parametrize(("steps", "begin"), [(19, 0), (20, 0), (36, 0), (36, 8), (45, 0), (60, 58)])
def test_restart_goes_back_up_as_often_as_there(steps: int, begin: int):
    for schedule in ("default", "karras", "trailing"):
        found = compare(route(SAMPLERS["Restart"], schedule, steps, begin), "epsilon")
        journey = JourneyCache(SCHEDULER_CONFIG).get(route(SAMPLERS["Restart"], schedule, steps, begin))
        taken = steps - begin
        assert sum(journey.draws) == (taken >= 20) + (taken >= 36)
        assert found.num_calls == SAMPLERS["Restart"].model_calls(taken)
        for dtype, error in found.errors.items():
            assert error <= MAX_ERROR[dtype], f"{schedule}, {dtype}"


@pytest.mark.parametrize("name", [sampler.name for sampler in SAMPLERS.values() if sampler.is_own])
def test_every_number_of_steps_follows_the_loop(name: str):
    for steps in (1, 2, 3, 4, 5, 6, 11):
        found = compare(route(SAMPLERS[name], "default", steps, 0), "v_prediction")
        for dtype, error in found.errors.items():
            assert error <= MAX_ERROR[dtype], f"{steps} steps, {dtype}"


@by_sampler
@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_model_calls_are_known_before_the_table_is(sampler: Sampler, steps: int):
    """The gateway prices a request without torch."""
    cache = JourneyCache(SCHEDULER_CONFIG)
    assert cache.get(route(sampler, "default", steps, 0)).num_calls == sampler.model_calls(steps)
    middle = int(steps * 0.4)
    assert cache.get(route(sampler, "default", steps, middle)).num_calls == sampler.model_calls(steps - middle)


@by_sampler
def test_stochastic_samplers_are_those_that_use_noise(sampler: Sampler):
    # Restart goes back up from 20 steps on.
    journey = JourneyCache(SCHEDULER_CONFIG).get(route(sampler, "default", 20, 0))
    assert bool(journey.matrices[..., -1].any()) == (sampler.is_stochastic or bool(sampler.default_eta))


@by_sampler
def test_no_coefficient_has_changed_under_us(sampler: Sampler):
    """A diffusers that steps otherwise than the one our pictures were drawn with; see `make sampler-coefficients`."""
    recorded = json.loads(COEFFICIENTS.read_text())
    for schedule in sampler.noise_schedules:
        found = fingerprint(JourneyCache(SCHEDULER_CONFIG).get(route(sampler, schedule, 7, 0)))
        assert found == pytest.approx(recorded[f"{sampler.name} / {schedule}"], rel=ROUNDING), schedule


@by_sampler
def test_the_last_bit_of_a_processor_changes_no_fingerprint(sampler: Sampler):
    """
    Another processor rounds another logarithm up. Every level of noise is moved by half a unit in its last place, at
    random: a schedule that jumps at a rounding, and not only the two that are known, shows here on any machine.
    """
    generator = torch.Generator().manual_seed(0)
    for schedule in sampler.noise_schedules:
        usual = make_scheduler(sampler, schedule, SCHEDULER_CONFIG)
        wanted = route(sampler, schedule, 7, 0)
        expected = fingerprint(JourneyCache(SCHEDULER_CONFIG).get(wanted))
        for _ in range(4):
            other = copy.deepcopy(usual)
            jitter = torch.rand(len(other.alphas_cumprod), generator=generator) - 0.5
            other.alphas_cumprod = other.alphas_cumprod * (1 + 2 * torch.finfo(torch.float32).eps * jitter)
            if hasattr(other, "final_alpha_cumprod"):
                other.final_alpha_cumprod = other.alphas_cumprod[0]
            found = fingerprint(probe(other, set_timesteps(other, sampler, schedule, 7), wanted))
            assert found == pytest.approx(expected, rel=ROUNDING), schedule


@pytest.mark.parametrize("part", ["timesteps", "input_scales", "matrices"])
def test_a_changed_number_of_a_table_changes_its_fingerprint(part: str):
    journey = JourneyCache(SCHEDULER_CONFIG).get(route(SAMPLERS["DPMSolver++"], "default", 7, 0))
    numbers = getattr(journey, part).flatten()
    for index in numbers.nonzero().flatten().tolist():
        changed = numbers.clone()
        changed[index] -= 2.0 if part == "timesteps" else 0.1
        found = fingerprint(replace(journey, **{part: changed.view_as(getattr(journey, part))}))
        assert found != pytest.approx(fingerprint(journey), rel=ROUNDING), index


@pytest.mark.parametrize(
    "name", ["DDIM", "DPMSolver++", "PNDM", "LMS", "Heun", "UniPC", "DEIS", "DPM2", "HeunPP2", "IPNDM"]
)
def test_a_perfect_network_brings_back_the_image_from_the_middle(name: str):
    """Where diffusers' own way into PNDM and LMS leaves up to a quarter of the noise in the picture."""
    image = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    wanted = route(SAMPLERS[name], "default", 20, 8)
    final = table_loop(wanted, SCHEDULER_CONFIG, image, [noise], torch.float64, lambda _latents, _timestep: noise)
    left_over = float((final * noise).mean() / (noise * noise).mean() - (image * noise).mean() / (noise * noise).mean())
    assert abs(left_over) < 0.04
    assert float((final - image).abs().max()) < 0.15


@pytest.mark.parametrize("sampler", ["LCM", "TCD"])
def test_more_steps_than_a_distilled_sampler_has_are_refused(sampler: str):
    with pytest.raises(InvalidParamsError, match="num_inference_steps must suit the sampler"):
        JourneyCache(SCHEDULER_CONFIG).get(route(SAMPLERS[sampler], "default", 60, 0))


def test_a_schedulers_noise_source_is_given_back():
    module = diffusers.schedulers.scheduling_euler_ancestral_discrete
    before = module.randn_tensor
    JourneyCache(SCHEDULER_CONFIG).get(route(SAMPLERS["Euler a"], "default", 7, 0))
    assert module.randn_tensor is before


def test_journeys_are_made_once_and_the_oldest_are_forgotten():
    cache = JourneyCache(SCHEDULER_CONFIG, max_entries=2)
    first = cache.get(route(SAMPLERS["DDIM"], "default", 5, 0))
    assert cache.get(route(SAMPLERS["DDIM"], "default", 5, 0)) is first
    for steps in (6, 7):
        cache.get(route(SAMPLERS["DDIM"], "default", steps, 0))
    assert cache.get(route(SAMPLERS["DDIM"], "default", 5, 0)) is not first


def test_the_document_has_every_row_and_every_figure_holds():
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in DOCUMENT.read_text().splitlines()
        if re.match(r"\| .* \| (epsilon|v) \| \d+ \|", line)
    ]
    listed = {(row[0].rstrip(" ¹²"), row[1], row[2]) for row in rows}
    assert listed == {
        (sampler.name, schedule, prediction.removesuffix("_prediction"))
        for sampler, schedule in pairs()
        for prediction in PREDICTIONS
    }
    for row in rows:
        assert all(float(cell) <= MAX_ERROR[torch.float32] for cell in row[5:11]), row
        assert float(row[11]) <= MAX_ERROR[torch.float64], row
