"""Every sampler on the scheduler configurations that models have: a finite table or a clear refusal, never a crash."""

from __future__ import annotations

import logging

import pytest
import torch

from engine.errors import InvalidParamsError
from engine.journey_cache import JourneyCache
from engine.models.fake import SCHEDULER_CONFIG
from engine.samplers import AYS, SAMPLERS, Sampler
from engine.schedulers import alphas_cumprod, make_scheduler
from tests.engine.sampler_table import route

CONFIGURATIONS: dict[str, dict[str, object]] = {
    "scaled linear": {},
    "linear betas": {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02},
    "cosine betas": {"beta_schedule": "squaredcos_cap_v2"},
    "zero terminal SNR": {
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
        "prediction_type": "v_prediction",
    },
    "100 training steps": {"num_train_timesteps": 100, "prediction_type": "v_prediction"},
    "clipped samples": {"clip_sample": True, "set_alpha_to_one": True, "steps_offset": 0},
    "listed betas": {"trained_betas": [0.0005 * (1 + step % 20) for step in range(1000)]},
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS.keys())
def test_every_schedule_gives_a_finite_table_or_names_the_field(sampler: Sampler, name: str):
    cache = JourneyCache({**SCHEDULER_CONFIG, **CONFIGURATIONS[name]})
    for noise_schedule in sampler.noise_schedules:
        for steps, begin in ((1, 0), (2, 0), (2, 1)):
            try:
                journey = cache.get(route(sampler, noise_schedule, steps, begin))
            except InvalidParamsError as error:
                assert error.field in {"sampler", "noise_schedule", "num_inference_steps"}  # noqa: PT017 - a refusal is one of two
                continue
            assert torch.isfinite(journey.matrices).all()
            assert torch.isfinite(journey.input_scales).all()


def test_a_fault_of_the_library_is_a_refusal_that_says_what_failed_and_is_logged(caplog):
    cosine = JourneyCache({**SCHEDULER_CONFIG, **CONFIGURATIONS["cosine betas"]})
    with pytest.raises(InvalidParamsError, match=r"sampler must suit .* 2 steps: IndexError: .*, not 'DPM2 a'"):
        cosine.get(route(SAMPLERS["DPM2 a"], "default", 2, 0))
    assert "IndexError" in caplog.text
    short = JourneyCache({**SCHEDULER_CONFIG, **CONFIGURATIONS["100 training steps"]})
    with pytest.raises(InvalidParamsError, match=f"{AYS} noise levels"):
        short.get(route(SAMPLERS["Euler"], AYS, 10, 0))


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_our_noise_levels_are_those_of_diffusers(name: str):
    """
    Previews take them from the configuration, without diffusers.
    """
    config = {**SCHEDULER_CONFIG, **CONFIGURATIONS[name]}
    expected = make_scheduler(SAMPLERS["DDIM"], "default", config).alphas_cumprod
    # diffusers turns zero terminal SNR's levels back into betas, and rounds; the others are the same bits.
    tolerance = 1e-6 if config.get("rescale_betas_zero_snr") else 0.0
    torch.testing.assert_close(alphas_cumprod(config), expected, rtol=0, atol=tolerance)


def test_a_configuration_that_leaves_all_to_diffusers_has_its_defaults():
    expected = make_scheduler(SAMPLERS["DDIM"], "default", {}).alphas_cumprod
    assert torch.equal(alphas_cumprod({"trained_betas": None}), expected)


def test_what_a_scheduler_does_not_know_is_left_out_in_silence(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("diffusers"), "propagate", True)

    make_scheduler(SAMPLERS["TCD"], "default", {"beta_schedule": "scaled_linear", "skip_prk_steps": True})

    assert caplog.messages == []
