"""Estimated ends of jobs against the truth: a real engine with a scripted clock, on a slow device and on a wide one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import torch

from engine.params import GenerationParams
from server.executors.messages import EngineInfo, WorkDone
from server.executors.work_times import WorkTimes
from server.jobs.eta_simulation import Running, simulate
from tests.server.jobs.scripted_host import (
    IMAGE,
    Host,
    hires_fix,
    mixed_queue,
    params,
    queue_with_pictures,
    slow_host,
    wide_host,
)


def assert_foretold(host: Host) -> None:
    """What is foretold now comes true: each end within a fifth of the wait, all together within a tenth.

    Besides, a round may be missed: which size has the next turn is known to the engine alone.
    """
    now, ends = host.model.now, host.foretold()
    assert ends
    host.run_until(lambda: False)
    foretold = {job_id: end - now for job_id, end in ends.items()}
    true = {job_id: host.ended[job_id] - now for job_id in ends}
    wrong = {
        job_id: (round(foretold[job_id], 3), round(true[job_id], 3))
        for job_id in ends
        if abs(foretold[job_id] - true[job_id]) > 0.2 * true[job_id] + host.round_s
    }
    assert not wrong, f"job: (foretold, true): {wrong}"
    assert sum(abs(foretold[job_id] - true[job_id]) for job_id in ends) < 0.1 * sum(true.values())


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors this small only lose by being shared out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


HOSTS = pytest.mark.parametrize("host_of", [slow_host, wide_host])


@HOSTS
@pytest.mark.parametrize("seed", range(3))
def test_the_end_of_every_job_of_a_mixed_queue_is_foretold_within_a_fifth(host_of: Callable[[], Host], seed: int):
    host = host_of()
    host.accept([params(num_inference_steps=4)])
    host.run_until(lambda: False)
    host.accept(mixed_queue(25, seed))
    assert_foretold(host)


@HOSTS
@pytest.mark.parametrize("seed", range(3))
def test_it_is_foretold_in_the_midst_of_drawing_too(host_of: Callable[[], Host], seed: int):
    host = host_of()
    host.accept(mixed_queue(25, seed))
    host.run_until(lambda: len(host.ended) == 6)
    for _ in range(5):
        host.go_on()
    assert host.running
    assert host.queued
    assert_foretold(host)


@HOSTS
@pytest.mark.parametrize("ended", [0, 6])
def test_jobs_with_pictures_and_second_legs_are_foretold_before_and_in_the_midst(
    host_of: Callable[[], Host], ended: int
):
    host = host_of()
    host.accept([params(image=IMAGE), params(hires=hires_fix(3, "lanczos"), num_images=2)])
    host.run_until(lambda: False)
    host.accept(queue_with_pictures(25, seed=5))
    host.run_until(lambda: len(host.ended) == 2 + ended)
    assert_foretold(host)


@HOSTS
@pytest.mark.parametrize(
    "wish",
    [
        {"image": IMAGE, "strength": 0.3, "num_images": 3},
        {"hires": hires_fix(10, "latent")},
        {"hires": hires_fix(2, "lanczos"), "num_images": 2},
    ],
)
def test_an_idle_engine_draws_over_a_picture_and_in_two_legs_as_foretold(host_of: Callable[[], Host], wish: dict):
    host = host_of()
    host.accept([params(image=IMAGE), params(hires=hires_fix(3, "lanczos"))])
    host.run_until(lambda: False)
    host.accept([params(**wish)])
    assert_foretold(host)


def test_enlarging_counts_what_its_tiles_take_and_holds_no_place():
    info = EngineInfo("fake", "cpu", "CPU", "float32", 64, 64, 2, 1)
    times = times_of(WorkDone("step", 1.0, 2, 64, 64), WorkDone("upscale", 0.5, 1, 512, 512))
    large = params(prompt="", image=IMAGE, width=1024, height=1024, upscaler="lanczos")
    text = params(num_inference_steps=3)
    assert ends_s(times, [], [large, text, large], info) == [2.0, 5.0, 7.0]


@HOSTS
def test_an_idle_engine_draws_a_lone_job_as_foretold(host_of: Callable[[], Host]):
    for wish in (params(), params(num_images=8), params(guidance_scale=1.0, num_images=3), params(sampler="Heun")):
        host = host_of()
        host.accept([params()])
        host.run_until(lambda: False)
        host.accept([wish])
        assert_foretold(host)


def test_a_job_for_more_pictures_than_fit_together_runs_alone_and_its_rest_is_foretold():
    host = slow_host()
    host.accept([params(num_images=8), params(num_images=3)])
    host.run_until(lambda: sum(host.calls["1"]) == 35)
    assert_foretold(host)


def test_nothing_is_foretold_before_a_step_was_seen():
    host = slow_host()
    host.accept([params()])
    assert host.foretold() is None


def ends_s(times: WorkTimes, running: list[Running], queued: list[GenerationParams], info: EngineInfo) -> list[float]:
    simulation = simulate(running, queued, info, times)
    assert simulation is not None
    return simulation.ends


def eta_of_another_s(
    times: WorkTimes,
    running: list[Running],
    queued: list[GenerationParams],
    another: GenerationParams,
    info: EngineInfo,
) -> float:
    simulation = simulate(running, queued, info, times)
    assert simulation is not None
    return simulation.end_of_another(another)


def times_of(*items: WorkDone) -> WorkTimes:
    times = WorkTimes()
    for item in items:
        times.observe(item)
    return times


def test_an_eta_is_the_end_of_the_last_and_what_comes_on_top():
    times = times_of(WorkDone("step", 0.1, 2, 64, 64), WorkDone("decode", 0.5, 1, 64, 64))
    info = slow_host().info
    assert eta_of_another_s(times, [], [], params(), info) == pytest.approx(1.5)
    assert eta_of_another_s(times, [Running(params(), [4])], [params()], params(), info) == pytest.approx(
        0.9 + 1.5 + 1.5
    )
    assert eta_of_another_s(times, [Running(params(), [0])], [], params(), info) == pytest.approx(0.5 + 1.5)


def test_a_job_alone_costs_its_calls_its_decodes_and_one_reading_of_its_prompts():
    times = times_of(
        WorkDone("step", 0.1, 8, 64, 64), WorkDone("decode", 0.5, 1, 64, 64), WorkDone("encode", 0.3, 2, 0, 0)
    )
    info = EngineInfo("fake", "cpu", "CPU", "float32", 64, 64, rows_per_call=8, max_images_in_flight=4)
    assert eta_of_another_s(times, [], [], params(), info) == pytest.approx(0.3 + 1.0 + 0.5)
    assert eta_of_another_s(times, [], [], params(num_images=5), info) == pytest.approx(0.3 + 2.0 + 2.5)


@pytest.mark.parametrize("make_host", [slow_host, wide_host])
@pytest.mark.parametrize("seed", range(5))
def test_what_is_told_of_another_job_is_what_playing_it_through_behind_all_others_tells(make_host, seed):
    host = make_host()
    host.accept([params()])
    host.run_until(lambda: False)
    times, queued = host.times, mixed_queue(30, seed=seed)
    running = [Running(params(num_images=2), [2, 5]), Running(params(guidance_scale=1.0), [3])]
    simulation = simulate(running, queued, host.info, times)
    assert simulation is not None
    ends = [*simulation.ends]
    for another in (params(), params(num_images=5), params(width=320, num_inference_steps=3), *mixed_queue(3, seed=9)):
        told = simulation.end_of_another(another)
        assert told == pytest.approx(ends_s(times, running, [*queued, another], host.info)[-1])
    assert simulation.ends == ends, "asking changes nothing"


def test_prompts_are_read_once_a_job():
    times = times_of(
        WorkDone("step", 0.1, 2, 64, 64), WorkDone("encode", 0.3, 2, 0, 0), WorkDone("encode", 0.2, 1, 0, 0)
    )
    info = slow_host().info
    assert eta_of_another_s(times, [], [], params(num_images=3), info) == pytest.approx(0.3 + 3.0)
    assert eta_of_another_s(times, [], [], params(guidance_scale=1.0), info) == pytest.approx(0.2 + 1.0)
    assert eta_of_another_s(times, [Running(params(), [10])], [], params(), info) == pytest.approx(1.0 + 0.3 + 1.0)


def test_pictures_that_were_drawn_and_decoded_count_no_more():
    times = times_of(WorkDone("step", 0.1, 2, 64, 64), WorkDone("decode", 0.5, 1, 64, 64))
    running = [Running(params(num_images=8), [5, 10, 10, 10])]
    assert ends_s(times, running, [], slow_host().info) == pytest.approx([3.5 + 4 * 0.5])
    running = [Running(params(num_images=8), [])]
    assert ends_s(times, running, [], slow_host().info) == pytest.approx([0.5]), "not told yet that it has ended"


def test_pictures_beyond_the_rows_of_a_call_wait_for_the_older_ones():
    times = times_of(WorkDone("step", 0.1, 4, 64, 64))
    info = EngineInfo("fake", "cpu", "CPU", "float32", 64, 64, rows_per_call=4, max_images_in_flight=4)
    # The second one's decode lets those that still draw take a call first, as the engine does.
    assert ends_s(times, [], [params()] * 4, info) == pytest.approx([1.0, 1.1, 2.0, 2.0])
    assert ends_s(times, [], [params(guidance_scale=1.0)] * 4, info) == pytest.approx([1.0] * 4)


def test_on_a_wide_device_a_job_does_not_wait_for_those_it_shares_calls_with():
    times = times_of(WorkDone("step", 0.1, 32, 64, 64))
    busy = [Running(params(num_inference_steps=100), [100])] * 15
    assert eta_of_another_s(times, busy, [], params(), wide_host().info) == pytest.approx(1.0)
    assert eta_of_another_s(times, [*busy, busy[0]], [], params(), wide_host().info) == pytest.approx(11.0)


def test_a_full_queue_is_played_through_in_milliseconds():
    host = wide_host()
    host.accept([params()])
    host.run_until(lambda: False)
    host.accept(mixed_queue(116, seed=1))
    began = time.process_time()
    assert host.foretold()
    # Takes 3 to 5 ms.
    assert time.process_time() - began < 0.25
