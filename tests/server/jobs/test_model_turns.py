"""Models that do not fit into memory together take turns: waits are bounded, and little time goes into loading."""

from __future__ import annotations

import contextvars
import heapq
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from engine.params import GenerationParams
from server.executors.messages import EngineInfo, ModelsChanged
from server.executors.pool import EnginePool
from server.executors.seat import Seat
from server.jobs.fair_queue import FairQueue
from server.jobs.live_job import LiveJob
from server.jobs.model_turns import LEAST_TURN_S, LOADS_A_TURN, ModelTurns
from server.store.record import JobRecord, NewJob

PLACES = 4
JOB_S = 2.0


def job(job_id: str, model: str, key_id: str, num_images: int = 1) -> LiveJob:
    new = NewJob(
        id=job_id,
        key_id=key_id,
        user=None,
        params=GenerationParams(prompt="a lamp", seed=1, model=model, num_images=num_images),
        output_format="png",
        is_bound=False,
        idempotency_key=None,
        request_digest=b"",
        created_at=0.0,
    )
    record = JobRecord(
        seq=1,
        new=new,
        status="queued",
        attempt=0,
        losses=0,
        crashes=0,
        started_at=None,
        outcome=None,
        has_files=False,
    )
    return LiveJob(record=record, accepted_at=0.0, context=contextvars.copy_context())


def executor(models: ModelsChanged | None) -> SimpleNamespace:
    info = EngineInfo("fake", "cpu", "CPU", "float32", 64, 64, rows_per_call=2, max_images_in_flight=PLACES)
    return SimpleNamespace(state="ready", info=info, models=models)


@dataclass
class Simulated:
    """A gateway and its engines on a scripted clock: a job takes about two seconds, whatever is drawn beside it."""

    budget_bytes: int | None = 1
    load_s: float = 1.0
    num_engines: int = 1
    now: float = 0.0
    num_loads: int = 0
    waited_s: dict[str, float] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        told = ModelsChanged(("a",), {"a": 1, "b": 1, "c": 1}, self.budget_bytes)
        self.pool = EnginePool({f"engine {number}": executor(told) for number in range(self.num_engines)})
        self.queue, self.turns = FairQueue(), ModelTurns(self.pool, lambda: self.now)
        self.live: dict[str, LiveJob] = {}
        self.arrived: dict[str, float] = {}
        self.events: list[tuple[float, int, str, Seat | None]] = []
        self.numbers = itertools.count()
        self.loading: dict[tuple[str, str], float] = {}
        """(Engine, model) -> when it is there."""

    def arrive(self, at: float, live: LiveJob) -> None:
        self.live[live.record.id] = live
        heapq.heappush(self.events, (at, next(self.numbers), live.record.id, None))

    def run(self, until: float = float("inf")) -> None:
        while self.events and self.events[0][0] <= until:
            self.now, _, job_id, seat = heapq.heappop(self.events)
            if job_id not in self.live:
                self.model_is_there(seat, job_id)
            elif seat is None:
                self.arrived[job_id] = self.now
                self.queue.put(job_id, key_id=self.live[job_id].record.new.key_id, user=None, work_units=1.0)
            else:
                seat.leave(job_id)
                self.ended[job_id] = self.now
            self.hand_over()

    def hand_over(self) -> None:
        while (found := self.turns.next(self.live[job_id] for job_id in self.queue.upcoming())) is not None:
            live, seat = found
            job_id, params = live.record.id, live.record.new.params
            self.queue.take(job_id)
            self.waited_s[job_id] = self.now - self.arrived[job_id]
            seat.take(job_id, params, alone=False)
            taken_s = JOB_S * (0.5 + len(self.waited_s) * 5 % 11 / 10)
            done_at = self.now + self.loaded(seat, params.model) + taken_s
            heapq.heappush(self.events, (done_at, next(self.numbers), job_id, seat))

    def model_is_there(self, seat: Seat, model: str) -> None:
        told = seat.executor.models
        models = ((*told.resident, model), told.sizes, told.budget_bytes, told.load_seconds | {model: self.load_s})
        seat.executor.models = ModelsChanged(*models)

    def loaded(self, seat: Seat, model: str) -> float:
        """Seconds until a model is there; others leave for it as the engine's shelf lets them."""
        told = seat.executor.models
        if model in told.resident:
            return 0.0
        if (seat.name, model) in self.loading and self.loading[seat.name, model] > self.now:
            return self.loading[seat.name, model] - self.now
        self.loading[seat.name, model] = self.now + self.load_s
        in_use = {self.live[job_id].record.new.params.model for job_id in seat.job_ids}
        room = len(told.sizes) if self.budget_bytes is None else self.budget_bytes
        assert len(in_use) <= room, "a model in use would have to leave"
        kept = [name for name in told.resident if name in in_use or room > len(in_use)][: room - 1]
        seat.executor.models = ModelsChanged((*kept,), told.sizes, told.budget_bytes, told.load_seconds)
        heapq.heappush(self.events, (self.now + self.load_s, next(self.numbers), model, seat))
        self.num_loads += 1
        return self.load_s


def crowd(simulated: Simulated, models: str, jobs_each: int) -> None:
    """Jobs enough to wait for, of each model in turn."""
    for number in range(jobs_each):
        for model in models:
            simulated.arrive(0.001 * number, job(f"{model}{number}", model, model))


@pytest.mark.parametrize("load_s", [0.5, 2.0, 8.0])
@pytest.mark.parametrize("models", ["ab", "abc"])
def test_two_models_that_take_turns_lose_a_fifth_of_the_throughput_at_most(load_s: float, models: str):
    mixed, alone = Simulated(load_s=load_s), Simulated(load_s=load_s)
    jobs = 600 // len(models)
    crowd(mixed, models, jobs)
    crowd(alone, "a", jobs * len(models))
    mixed.run()
    alone.run()
    assert len(mixed.ended) == len(alone.ended) == jobs * len(models)
    assert max(alone.ended.values()) / max(mixed.ended.values()) >= 0.8
    assert mixed.num_loads > 2, "one model after the other is not taking turns"


@pytest.mark.parametrize("load_s", [0.5, 2.0, 8.0])
def test_a_job_waits_for_its_model_no_longer_than_the_bound(load_s: float):
    """A flood of one model never ends, and now and then somebody asks for the other one."""
    simulated = Simulated(load_s=load_s)
    for number in range(1200):
        simulated.arrive(0.4 * number, job(f"a{number}", "a", "flood"))
    for number in range(8):
        simulated.arrive(13.0 + 57.7 * number, job(f"b{number}", "b", "somebody"))
    simulated.run()
    bound_s = max(LEAST_TURN_S, LOADS_A_TURN * load_s)
    waits = [simulated.waited_s[f"b{number}"] for number in range(8)]
    # Known only after its first load; and the jobs that run when the bound is reached are drawn to their end.
    assert max(waits) <= bound_s + 1.5 * JOB_S
    assert max(waits[1:]) > LEAST_TURN_S / 2, "jobs of the model that is there go first"


def test_an_idle_engine_changes_its_model_at_once():
    simulated = Simulated()
    simulated.arrive(5.0, job("b0", "b", "k"))
    simulated.arrive(9.0, job("a0", "a", "k"))
    simulated.run()
    assert simulated.waited_s == {"b0": 0.0, "a0": 0.0}
    assert simulated.num_loads == 2


def test_models_that_fit_together_do_not_wait_for_each_other():
    for budget in (3, None):
        simulated = Simulated(budget_bytes=budget)
        for number, model in enumerate("abcabc"):
            simulated.arrive(0.0, job(f"{model}{number}", model, "k"))
        simulated.run()
        assert [simulated.waited_s[name] for name in ("a0", "b1", "c2", "a3")] == [0.0] * 4
        assert simulated.num_loads == 2


def test_an_unused_model_makes_room_while_another_draws():
    """a and b are there, only a draws: c takes the place of b at once."""
    simulated = Simulated(budget_bytes=2)
    simulated.arrive(0.0, job("b0", "b", "k"))
    simulated.arrive(10.0, job("a0", "a", "k"))
    simulated.arrive(10.5, job("c0", "c", "k"))
    simulated.run()
    assert simulated.waited_s["c0"] == 0.0


def test_a_large_job_of_the_model_that_is_there_is_not_overtaken():
    simulated = Simulated()
    simulated.arrive(0.0, job("a0", "a", "k"))
    simulated.arrive(0.1, job("large", "a", "k", num_images=PLACES))
    simulated.arrive(0.2, job("a1", "a", "k"))
    simulated.run()
    assert simulated.waited_s["large"] == pytest.approx(simulated.ended["a0"] - 0.1)
    assert simulated.waited_s["a1"] > simulated.waited_s["large"]


def test_each_of_two_engines_keeps_its_model():
    simulated = Simulated(num_engines=2, load_s=1.0)
    crowd(simulated, "ab", 60)
    simulated.run()
    assert len(simulated.ended) == 120
    assert simulated.num_loads <= 3


def test_while_a_model_loads_only_its_own_jobs_join():
    simulated = Simulated(load_s=5.0)
    simulated.arrive(0.0, job("b0", "b", "k"))
    simulated.arrive(1.0, job("a0", "a", "l"))
    simulated.arrive(1.1, job("b1", "b", "k"))
    simulated.run()
    assert simulated.waited_s["b1"] == 0.0
    assert simulated.waited_s["a0"] > 5.0


def test_where_nothing_is_known_of_models_the_first_job_is_next():
    pool = EnginePool({"engine": executor(None)})
    jobs: Iterator[LiveJob] = iter([job("1", "b", "k"), job("2", "a", "k")])
    found = ModelTurns(pool).next(jobs)
    assert found is not None
    assert found[0].record.id == "1"
    assert ModelTurns(pool).next(iter([])) is None
