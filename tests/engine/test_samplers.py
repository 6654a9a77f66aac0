"""The names people know samplers by."""

from __future__ import annotations

import pytest

from engine.errors import InvalidParamsError
from engine.models.fake import SCHEDULER_CONFIG
from engine.samplers import SAMPLERS, resolve_sampler
from engine.schedulers import make_scheduler


@pytest.mark.parametrize(
    ("label", "name", "noise_schedule"),
    [
        ("DPMSolver++", "DPMSolver++", "default"),
        ("dpm++ 2m", "DPMSolver++", "default"),
        ("DPM++ 2M Karras", "DPMSolver++", "karras"),
        ("dpmpp_2m_karras", "DPMSolver++", "karras"),
        ("DPMSolverMultistepScheduler", "DPMSolver++", "default"),
        ("euler", "Euler", "default"),
        ("Euler a", "Euler a", "default"),
        ("euler_ancestral", "Euler a", "default"),
        ("EulerAncestralDiscreteScheduler", "Euler a", "default"),
        ("ddim", "DDIM", "default"),
        ("DPM++ 2M SDE Karras", "DPM++ 2M SDE", "karras"),
        ("DPM++ 2M SDE Exponential", "DPM++ 2M SDE", "exponential"),
        ("DPM++ SDE Karras", "DPM++ SDE", "karras"),
        ("DPM2 a Karras", "DPM2 a", "karras"),
        ("LMS Karras", "LMS", "karras"),
        ("PLMS", "PNDM", "default"),
        ("Euler AYS", "Euler", "ays"),
        ("UniPC", "UniPC", "default"),
        ("DPM++ 2S a Karras", "DPM++ 2S a", "karras"),
        ("dpmpp_2s_ancestral", "DPM++ 2S a", "default"),
        ("DPM++ 2M SDE Heun Exponential", "DPM++ 2M SDE Heun", "exponential"),
        ("ipndm_v", "IPNDM V", "default"),
        ("dpm_fast", "DPM fast", "default"),
    ],
)
def test_a_sampler_answers_to_every_name_it_has(label: str, name: str, noise_schedule: str):
    sampler, resolved = resolve_sampler(label)
    assert (sampler.name, resolved) == (name, noise_schedule)


def test_karras_is_preferred_only_where_it_exists_and_nothing_else_was_asked():
    assert resolve_sampler("Euler", prefer_karras=True)[1] == "karras"
    assert resolve_sampler("DDIM", prefer_karras=True)[1] == "default"
    assert resolve_sampler("Euler", "default", prefer_karras=True)[1] == "default"


def test_an_impossible_pair_is_refused_with_the_possible_ones():
    with pytest.raises(InvalidParamsError, match=r"noise_schedule must be one of default, .* with the sampler DDIM"):
        resolve_sampler("DDIM", "karras")


def test_a_label_and_a_schedule_that_disagree_are_refused():
    with pytest.raises(InvalidParamsError, match="must agree with the sampler"):
        resolve_sampler("DPM++ 2M Karras", "default")


def test_no_two_samplers_share_a_name():
    labels = [label.casefold() for sampler in SAMPLERS.values() for label in (sampler.name, *sampler.aliases)]
    assert len(labels) == len(set(labels))


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_sampler_that_a_checkpoint_was_saved_with_leaks_into_no_other(name: str):
    sampler = SAMPLERS[name]
    saved = {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun", "solver_order": 3}
    plain, leaky = (
        make_scheduler(sampler, "default", config) for config in (SCHEDULER_CONFIG, {**SCHEDULER_CONFIG, **saved})
    )
    assert dict(leaky.config) == dict(plain.config)
