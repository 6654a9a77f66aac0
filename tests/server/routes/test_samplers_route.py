"""`GET /v1/samplers` tells what may be asked for, and what is told is true."""

from __future__ import annotations

import httpx2
import pytest

from engine.samplers import NOISE_SCHEDULES, SAMPLERS
from tests.conftest import RunningServer


def samplers(server: RunningServer, query: str = "") -> dict:
    answer = httpx2.get(f"{server.url}/v1/samplers{query}")
    assert answer.status_code == 200
    return answer.json()


def test_every_sampler_is_listed_with_all_that_matters(server: RunningServer):
    told = samplers(server)
    assert [sampler["name"] for sampler in told["samplers"]] == list(SAMPLERS)
    assert told["noise_schedules"] == list(NOISE_SCHEDULES)
    assert [sampler["name"] for sampler in told["samplers"] if sampler["is_default"]] == ["DPMSolver++"]
    heun = next(sampler for sampler in told["samplers"] if sampler["name"] == "Heun")
    assert (heun["model_calls"], heun["model_calls_formula"], heun["is_stochastic"]) == (55, "2n - 1", False)
    assert heun["diffusers_class"] == "HeunDiscreteScheduler"
    heun_pp = next(sampler for sampler in told["samplers"] if sampler["name"] == "HeunPP2")
    assert (heun_pp["model_calls"], heun_pp["diffusers_class"]) == (81, None)


def test_model_calls_are_for_the_steps_that_were_asked_about(server: RunningServer):
    told = samplers(server, "?num_inference_steps=20")
    calls = {sampler["name"]: sampler["model_calls"] for sampler in told["samplers"]}
    assert (calls["Euler"], calls["DPM2"], calls["PNDM"]) == (20, 39, 21)


@pytest.mark.parametrize("steps", ["0", "151", "many"])
def test_steps_that_cannot_be_asked_for_are_refused(server: RunningServer, steps: str):
    answer = httpx2.get(f"{server.url}/v1/samplers?num_inference_steps={steps}")
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


def test_every_listed_name_and_schedule_can_be_asked_for(server: RunningServer):
    with httpx2.Client(base_url=server.url) as client:
        for sampler in samplers(server)["samplers"]:
            pairs = {(sampler["name"], schedule) for schedule in sampler["noise_schedules"]}
            pairs |= {(alias, sampler["noise_schedules"][-1]) for alias in sampler["aliases"]}
            for label, schedule in pairs:
                body = {"prompt": "x", "sampler": label, "noise_schedule": schedule, "num_inference_steps": 2}
                answer = client.post("/generate", json=body)
                assert answer.status_code == 200, answer.text
                assert answer.headers["x-sampler"] == sampler["name"]
                assert answer.headers["x-noise-schedule"] == schedule


def test_a_pair_that_cannot_be_names_the_ones_that_can(server: RunningServer):
    answer = httpx2.post(f"{server.url}/generate", json={"prompt": "x", "sampler": "Euler a", "noise_schedule": "lu"})
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["field"] == "noise_schedule"
    assert "default, leading, trailing, linspace" in error["rule"]


def test_eta_is_taken_where_it_means_something(server: RunningServer):
    ddim = {"prompt": "x", "sampler": "DDIM", "eta": 1.0}
    assert httpx2.post(f"{server.url}/generate", json=ddim).status_code == 200
    answer = httpx2.post(f"{server.url}/generate", json={"prompt": "x", "sampler": "Euler", "eta": 0.5})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "eta"
