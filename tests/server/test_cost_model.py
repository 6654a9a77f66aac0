"""Foretold ends of jobs against the truth: a real engine with a scripted clock, on a slow device and on a wide one."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import pytest
import torch

from engine.engine import Engine
from engine.events import Finished, StepTaken, WorkItem
from engine.models.fake import LATENT_CHANNELS, FakeModel
from engine.params import GenerationParams
from server.executors.messages import EngineInfo, WorkDone
from server.executors.work_times import WorkTimes
from server.jobs.cost_model import CostModel, Running


def params(**changes: object) -> GenerationParams:
    default = GenerationParams(prompt="a lamp", num_inference_steps=10, height=64, width=64, seed=1)
    return replace(default, **changes)  # type: ignore[arg-type] # the names of its fields


class ScriptedModel(FakeModel):
    """Takes the time that a script says, give or take a tenth, on a clock of its own."""

    def __init__(self, step_s: Callable[[int, int], float], decode_s: Callable[[int], float], encode_s: float) -> None:
        super().__init__()
        self.now = 0.0
        self._step_s, self._decode_s, self._encode_s = step_s, decode_s, encode_s
        self._random = random.Random(7)

    def _take(self, seconds: float) -> None:
        self.now += seconds * self._random.uniform(0.9, 1.1)

    def encode_prompt(self, prompt: str) -> torch.Tensor:
        self._take(self._encode_s)
        return super().encode_prompt(prompt)

    def denoise(self, latents: torch.Tensor, timesteps: torch.Tensor, prompt_embeds: torch.Tensor) -> torch.Tensor:
        rows, _, height, width = latents.shape
        self._take(self._step_s(rows, 64 * height * width))
        return latents * 0.1

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        channels, height, width = latents.shape
        assert channels == LATENT_CHANNELS
        self._take(self._decode_s(64 * height * width))
        return torch.zeros(8 * height, 8 * width, 3, dtype=torch.uint8)


@dataclass
class Host:
    """A gateway of a few lines around a real engine: hands over what there is room for, and notes who ended when."""

    model: ScriptedModel
    rows_per_call: int
    max_images_in_flight: int
    round_s: float
    """A call of every size in `mixed_queue`, and a few decodes."""
    times: WorkTimes = field(default_factory=WorkTimes)
    queued: deque[tuple[str, GenerationParams]] = field(default_factory=deque)
    running: dict[str, GenerationParams] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.engine = Engine(
            self.model,
            rows_per_call=self.rows_per_call,
            max_images_in_flight=self.max_images_in_flight,
            clock=lambda: self.model.now,
        )
        self.info = EngineInfo("fake", "cpu", "CPU", "float32", 64, 64, self.rows_per_call, self.max_images_in_flight)

    def accept(self, wishes: Sequence[GenerationParams]) -> None:
        for wish in wishes:
            number = len(self.calls) + 1
            self.calls[f"{number}"] = 0
            self.queued.append((f"{number}", replace(wish, prompt=f"{wish.prompt} {number}")))

    def go_on(self) -> None:
        while self.queued and self._has_room():
            job_id, wish = self.queued.popleft()
            self.running[job_id] = wish
            self.engine.add(self.engine.prepare(job_id, wish))
        for event in self.engine.step():
            match event:
                case WorkItem():
                    self.times.observe(WorkDone(event.kind, event.seconds, event.rows, event.height, event.width))
                case StepTaken():
                    self.calls[event.request_id] += 1
                case Finished():
                    self.ended[event.request_id] = self.model.now
                    del self.running[event.request_id]

    def _has_room(self) -> bool:
        free = self.max_images_in_flight - sum(wish.num_images for wish in self.running.values())
        return not self.running or self.queued[0][1].num_images <= free

    def run_until(self, is_enough: Callable[[], bool]) -> None:
        while (self.queued or self.running) and not is_enough():
            self.go_on()

    def foretold(self) -> dict[str, float] | None:
        """Job -> when it will end, on the model's clock."""
        running = [
            Running(wish, wish.model_calls * wish.num_images - self.calls[job_id])
            for job_id, wish in self.running.items()
        ]
        foresight = CostModel(self.times).foresee(running, [wish for _, wish in self.queued], self.info)
        job_ids = [*self.running, *(job_id for job_id, _ in self.queued)]
        if foresight is None:
            return None
        return {job: self.model.now + end for job, end in zip(job_ids, foresight.ends, strict=True)}


def slow_host() -> Host:
    """Two rows a call and one picture at a time, as on a CPU: time goes with rows and pixels."""
    model = ScriptedModel(lambda rows, pixels: rows * pixels * 1e-5, lambda pixels: pixels * 3e-5, encode_s=0.02)
    return Host(model, rows_per_call=2, max_images_in_flight=1, round_s=0.1)


def wide_host() -> Host:
    """Thirty-two rows a call and sixteen pictures together, as on a GPU."""
    model = ScriptedModel(
        lambda rows, pixels: 0.002 + rows * pixels * 2e-7, lambda pixels: pixels * 1e-6, encode_s=0.004
    )
    return Host(model, rows_per_call=32, max_images_in_flight=16, round_s=0.3)


def mixed_queue(number: int, seed: int) -> list[GenerationParams]:
    chance = random.Random(seed)
    return [
        params(
            num_inference_steps=chance.choice([3, 6, 14]),
            guidance_scale=chance.choice([1.0, 7.0, 7.0]),
            width=chance.choice([64, 64, 64, 96, 160]),
            num_images=chance.choice([1, 1, 2, 5]),
            sampler=chance.choice(["DPMSolver++", "Heun"]),
        )
        for _ in range(number)
    ]


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
    host.run_until(lambda: host.calls["1"] == 35)
    assert_foretold(host)


def test_nothing_is_foretold_before_a_step_was_seen():
    host = slow_host()
    host.accept([params()])
    assert host.foretold() is None
    model = CostModel(host.times)
    assert eta_of_another_s(model, [], [], params(), host.info) is None


def ends_s(model: CostModel, running: list[Running], queued: list[GenerationParams], info: EngineInfo) -> list[float]:
    foresight = model.foresee(running, queued, info)
    assert foresight is not None
    return foresight.ends


def eta_of_another_s(
    model: CostModel,
    running: list[Running],
    queued: list[GenerationParams],
    another: GenerationParams,
    info: EngineInfo,
) -> float | None:
    foresight = model.foresee(running, queued, info)
    return None if foresight is None else model.end_of_another_s(foresight, another, info)


def model_of(*items: WorkDone) -> CostModel:
    times = WorkTimes()
    for item in items:
        times.observe(item)
    return CostModel(times)


def test_an_eta_is_the_end_of_the_last_and_what_comes_on_top():
    model = model_of(WorkDone("step", 0.1, 2, 64, 64), WorkDone("decode", 0.5, 1, 64, 64))
    info = slow_host().info
    assert eta_of_another_s(model, [], [], params(), info) == pytest.approx(1.5)
    assert eta_of_another_s(model, [Running(params(), 4)], [params()], params(), info) == pytest.approx(0.9 + 1.5 + 1.5)
    assert eta_of_another_s(model, [Running(params(), 0)], [], params(), info) == pytest.approx(0.5 + 1.5)


def test_a_job_alone_costs_its_calls_its_decodes_and_one_reading_of_its_prompts():
    model = model_of(
        WorkDone("step", 0.1, 8, 64, 64), WorkDone("decode", 0.5, 1, 64, 64), WorkDone("encode", 0.3, 2, 0, 0)
    )
    assert model.engine_seconds(params(), 8) == pytest.approx(0.3 + 1.0 + 0.5)
    assert model.engine_seconds(params(num_images=5), 8) == pytest.approx(0.3 + 2.0 + 2.5)
    assert CostModel(WorkTimes()).engine_seconds(params(), 8) is None


@pytest.mark.parametrize("make_host", [slow_host, wide_host])
@pytest.mark.parametrize("seed", range(5))
def test_what_is_told_of_another_job_is_what_playing_it_through_behind_all_others_tells(make_host, seed):
    host = make_host()
    host.accept([params()])
    host.run_until(lambda: False)
    model, queued = CostModel(host.times), mixed_queue(30, seed=seed)
    running = [Running(params(num_images=2), 7), Running(params(guidance_scale=1.0), 3)]
    foresight = model.foresee(running, queued, host.info)
    assert foresight is not None
    ends = [*foresight.ends]
    for another in (params(), params(num_images=5), params(width=320, num_inference_steps=3), *mixed_queue(3, seed=9)):
        told = model.end_of_another_s(foresight, another, host.info)
        assert told == pytest.approx(ends_s(model, running, [*queued, another], host.info)[-1])
    assert foresight.ends == ends, "asking changes nothing"


def test_prompts_are_read_once_a_job():
    model = model_of(
        WorkDone("step", 0.1, 2, 64, 64), WorkDone("encode", 0.3, 2, 0, 0), WorkDone("encode", 0.2, 1, 0, 0)
    )
    info = slow_host().info
    assert eta_of_another_s(model, [], [], params(num_images=3), info) == pytest.approx(0.3 + 3.0)
    assert eta_of_another_s(model, [], [], params(guidance_scale=1.0), info) == pytest.approx(0.2 + 1.0)
    assert eta_of_another_s(model, [Running(params(), 10)], [], params(), info) == pytest.approx(1.0 + 0.3 + 1.0)


def test_pictures_that_were_drawn_and_decoded_count_no_more():
    model = model_of(WorkDone("step", 0.1, 2, 64, 64), WorkDone("decode", 0.5, 1, 64, 64))
    running = [Running(params(num_images=8), 35)]
    assert ends_s(model, running, [], slow_host().info) == pytest.approx([3.5 + 4 * 0.5])


def test_pictures_beyond_the_rows_of_a_call_wait_for_the_older_ones():
    model = model_of(WorkDone("step", 0.1, 4, 64, 64))
    info = EngineInfo("fake", "cpu", "CPU", "float32", 64, 64, rows_per_call=4, max_images_in_flight=4)
    # The second one's decode lets those that still draw take a call first, as the engine does.
    assert ends_s(model, [], [params()] * 4, info) == pytest.approx([1.0, 1.1, 2.0, 2.0])
    assert ends_s(model, [], [params(guidance_scale=1.0)] * 4, info) == pytest.approx([1.0] * 4)


def test_on_a_wide_device_a_job_does_not_wait_for_those_it_shares_calls_with():
    times = WorkTimes()
    times.observe(WorkDone("step", 0.1, 32, 64, 64))
    model = CostModel(times)
    busy = [Running(params(num_inference_steps=100), 100)] * 15
    assert eta_of_another_s(model, busy, [], params(), wide_host().info) == pytest.approx(1.0)
    assert eta_of_another_s(model, [*busy, busy[0]], [], params(), wide_host().info) == pytest.approx(11.0)


def test_a_full_queue_is_played_through_in_milliseconds():
    host = wide_host()
    host.accept([params()])
    host.run_until(lambda: False)
    host.accept(mixed_queue(116, seed=1))
    began = time.process_time()
    assert host.foretold()
    # Takes 3 to 5 ms.
    assert time.process_time() - began < 0.25
