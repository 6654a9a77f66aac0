"""When a job will be done, told for next to nothing however long the queue is and however many ask."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from engine.params import GenerationParams
from server.executors.messages import EngineInfo, WorkDone
from server.executors.pool import EnginePool
from server.executors.work_times import WorkTimes
from server.jobs.estimates import Estimates
from server.jobs.fair_queue import FairQueue
from server.store.record import LOCAL_KEY

PARAMS = GenerationParams(prompt="a lamp", num_inference_steps=10, height=64, width=64, seed=1)
INFO = EngineInfo("fake", "cpu", "CPU", "float32", 64, 64, rows_per_call=2, max_images_in_flight=1)


class Waiting:
    """A gateway as `Estimates` sees it: so many jobs of a second each wait, and none is being drawn."""

    def __init__(self, num_jobs: int) -> None:
        times = WorkTimes()
        times.observe(WorkDone("step", 0.1, 2, 64, 64))
        self.queue = FairQueue()
        self.live: dict[str, SimpleNamespace] = {}
        self.running: dict[str, SimpleNamespace] = {}
        engine = SimpleNamespace(state="ready", info=INFO, work_times=times, models=None)
        self.estimates = Estimates(EnginePool({"a": engine}), self)
        for number in range(num_jobs):
            self.accept(f"{number:016x}")

    def accept(self, job_id: str) -> SimpleNamespace:
        self.queue.put(job_id, key_id=LOCAL_KEY, user=None, work_units=1.0)
        self.live[job_id] = SimpleNamespace(record=SimpleNamespace(id=job_id, new=SimpleNamespace(params=PARAMS)))
        return self.live[job_id]


def test_with_5000_jobs_waiting_asking_100_times_costs_little_more_than_asking_once():
    estimates = Waiting(5000).estimates
    began = time.thread_time()
    assert estimates.of_new_s(PARAMS) == pytest.approx(5001, abs=2)
    once_s = time.thread_time() - began
    began = time.thread_time()
    for number in range(100):
        # Whatever is asked for: no choice of a size makes it dearer.
        params = GenerationParams(prompt="?", seed=0, num_inference_steps=10, height=64, width=64 + 8 * number)
        assert estimates.of_new_s(params) > 4990
    assert time.thread_time() - began < 3 * once_s


def test_jobs_that_have_come_since_the_queue_was_played_through_count():
    waiting = Waiting(2000)
    before = waiting.estimates.of_new_s(PARAMS)
    for number in range(100):
        assert waiting.estimates.of_job_s(waiting.accept(f"{5000 + number:016x}")) > 2000
    assert waiting.estimates.of_new_s(PARAMS) - before == pytest.approx(100, abs=2)


def test_what_was_told_once_gets_less_as_time_goes_by():
    waiting = Waiting(3000)
    before = waiting.estimates.of_new_s(PARAMS)
    time.sleep(0.05)
    assert waiting.estimates.of_new_s(PARAMS) <= before - 0.05


def test_a_short_queue_is_looked_at_anew():
    waiting = Waiting(1)
    assert waiting.estimates.of_new_s(PARAMS) == pytest.approx(2, abs=0.1)
    waiting.queue.remove(f"{0:016x}")
    time.sleep(0.05)
    assert waiting.estimates.of_new_s(PARAMS) == pytest.approx(1, abs=0.01)
