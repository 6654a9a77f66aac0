"""The simulated engine does as the real one does, work item by work item: the same order, each job's end the same."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.params import GenerationParams
from server.executors.messages import ModelsChanged, WorkDone
from server.executors.work_times import WorkTimes
from server.jobs.eta_simulation import Drawing, Running, simulate, simulate_pool
from tests.server.jobs.scripted_host import Host, ScriptedModel, params

ENCODE_S = 0.017
WIDTHS = (64, 96, 128)
jobs = st.lists(
    st.builds(
        params,
        num_inference_steps=st.integers(1, 5),
        guidance_scale=st.sampled_from([1.0, 7.0]),
        width=st.sampled_from(WIDTHS),
        num_images=st.integers(1, 4),
        sampler=st.sampled_from(["DPMSolver++", "Heun"]),
    ),
    min_size=1,
    max_size=8,
)


def step_s(rows: int, pixels: int) -> float:
    return 0.1 + rows * pixels * 1e-6


def decode_s(pixels: int) -> float:
    return 0.03 + pixels * 7e-6


def exact_host(rows_per_call: int, max_images_in_flight: int, max_rows: int | None = None) -> Host:
    """Its work items take exactly what the script says."""
    model = ScriptedModel(step_s, decode_s, ENCODE_S, jitter=0.0, max_rows=max_rows)
    return Host(model, rows_per_call, max_images_in_flight, round_s=0.0)


@settings(max_examples=60, deadline=None)
@given(jobs, st.integers(2, 8), st.integers(1, 6))
@example([params(num_inference_steps=6), params(num_inference_steps=9, width=96), params(num_images=3)], 4, 3)
def test_every_job_of_any_mix_ends_when_the_simulation_says(
    wishes: list[GenerationParams], rows_per_call: int, max_images_in_flight: int
):
    host = exact_host(rows_per_call, max_images_in_flight)
    host.accept([params(height=72)])  # so that the empty negative prompt has been read
    host.run_until(lambda: False)
    began = host.model.now
    host.accept(wishes)
    host.run_until(lambda: False)
    true = [host.ended[f"{number}"] - began for number in range(2, 2 + len(wishes))]
    times = WorkTimes()
    for rows in (1, 2):
        times.observe(WorkDone("encode", ENCODE_S, rows, 0, 0))
    for width in WIDTHS:
        times.observe(WorkDone("step", step_s(rows_per_call, 64 * width), rows_per_call, 64, width))
        times.observe(WorkDone("decode", decode_s(64 * width), 1, 64, width))
    simulation = simulate([], wishes, host.info, times)
    assert simulation is not None
    assert simulation.ends == pytest.approx(true)


def test_after_a_call_ran_out_of_memory_estimates_are_of_the_smaller_calls():
    """
    The engine takes fewer rows a call from then on: pictures that fitted together take turns. What was seen of the
    larger calls, before, counts no more.
    """
    host = exact_host(rows_per_call=8, max_images_in_flight=4)
    host.accept([params(num_images=4, height=72), params(num_images=4)])
    host.run_until(lambda: False)
    host.model.max_rows = 4
    host.accept([params(num_images=4)])
    host.run_until(lambda: False)
    wish = params(num_images=4)
    began = host.model.now
    ends = host.estimated(wish)
    host.accept([wish])
    host.run_until(lambda: False)
    assert ends == pytest.approx([host.ended["4"] - began], rel=0.01)


def test_the_rows_of_a_size_are_those_of_its_newest_step():
    times = WorkTimes()
    assert times.step_rows(64, 64, otherwise=8) == 8
    for rows in (8, 4):
        times.observe(WorkDone("step", 0.1, rows, 64, 64))
    times.observe(WorkDone("step", 0.1, 8, 64, 96))
    times.observe(WorkDone("decode", 0.1, 1, 64, 64))
    assert times.step_rows(64, 64, otherwise=8) == 4
    times.observe(WorkDone("step", 0.1, 8, 64, 64))
    assert times.step_rows(64, 64, otherwise=2) == 8


def test_texts_of_different_length_are_read_longer_and_share_no_call():
    """Against the real engine, with parts of words as long as usual ones."""
    host = exact_host(rows_per_call=4, max_images_in_flight=2)
    host.accept([params(height=72, prompt_syntax="weighted")])
    host.run_until(lambda: False)
    began = host.model.now
    long = params(prompt="lamp " * 100, prompt_syntax="weighted", num_inference_steps=5)
    wishes = [params(num_inference_steps=5, prompt_syntax="weighted"), long]
    host.accept(wishes)
    host.run_until(lambda: False)
    times = WorkTimes()
    times.observe(WorkDone("encode", ENCODE_S, 2, 0, 0))
    times.observe(WorkDone("step", step_s(4, 64 * 64), 4, 64, 64))
    times.observe(WorkDone("decode", decode_s(64 * 64), 1, 64, 64))
    simulation = simulate([], wishes, host.info, times)
    assert simulation is not None
    assert simulation.ends == pytest.approx([host.ended["2"] - began, host.ended["3"] - began])


LOAD_S = 3.0


def with_models(
    *queued: str, resident: tuple[str, ...] = ("a",), running: str = "", budget_bytes: int = 1
) -> list[float]:
    """When jobs of these models end that take a second each, one at a time; b takes twice as long for a step."""
    times = WorkTimes()
    for model, seconds in (("a", 0.1), ("b", 0.2)):
        times.observe(WorkDone("step", seconds, 2, 64, 64, model=model))
    told = ModelsChanged(resident, {"a": 1, "b": 1, "c": 1}, budget_bytes, {"b": LOAD_S})
    info = exact_host(2, 1).info
    drawn = [Running(params(model=model), [10]) for model in running]
    simulation = simulate_pool([Drawing(info, times, drawn, told)], [params(model=model) for model in queued])
    assert simulation is not None
    return simulation.ends


def test_what_must_be_loaded_takes_longer_and_each_model_is_as_fast_as_it_is():
    assert with_models("a") == pytest.approx([1.0])
    assert with_models("b") == pytest.approx([LOAD_S + 2.0])
    assert with_models("b", resident=("a", "b"), budget_bytes=2) == pytest.approx([2.0])
    assert with_models("c", "c") == pytest.approx([LOAD_S + 1.0, LOAD_S + 2.0]), "as slow to load as what is known"
    assert with_models("b", running="b", resident=("a",)) == pytest.approx([LOAD_S + 2.0, LOAD_S + 4.0])


def test_models_that_do_not_fit_together_take_turns_in_estimates_too():
    ends = with_models("b", "a", "b", "a", running="a")
    assert ends == pytest.approx([1.0, 3.0 + LOAD_S + 2.0, 2.0, 3.0 + LOAD_S + 4.0, 3.0])
    many = with_models("b", *"a" * 40)
    turn_s = 6 * LOAD_S
    assert many[0] == pytest.approx(turn_s + LOAD_S + 2.0), "b waits for one turn"
    assert many[-1] == pytest.approx(40.0 + 2 * LOAD_S + 2.0)
    assert sorted(many) != many


def test_a_job_that_comes_after_all_others_knows_of_their_model():
    times = WorkTimes()
    times.observe(WorkDone("step", 0.1, 2, 64, 64))
    told = ModelsChanged(("a",), {"a": 1, "b": 1}, 1, {"b": LOAD_S, "a": 1.0})
    simulation = simulate_pool([Drawing(exact_host(2, 1).info, times, [], told)], [params(model="b")])
    assert simulation is not None
    assert simulation.end_of_another(params(model="b")) == pytest.approx(LOAD_S + 2.0)
    assert simulation.end_of_another(params(model="a")) == pytest.approx(LOAD_S + 1.0 + 1.0 + 1.0)
    assert simulation.end_of_another(params(model="b")) == pytest.approx(LOAD_S + 2.0), "asking changes nothing"
