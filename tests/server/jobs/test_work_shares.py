"""Whose time a work item was."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from functools import partial

from engine.engine import Engine
from engine.events import WorkItem
from engine.models.fake import FakeModel
from engine.params import GenerationParams
from server.executors.base import Job
from server.executors.messages import EngineInfo, WorkDone
from server.worker.engine_worker import EngineWorker
from server.worker.in_process import InProcessExecutor


def drawn(*wishes: dict[str, object], **options: object) -> list[WorkItem]:
    """The work items of an engine that draws these requests together."""
    engine = Engine(FakeModel(), **{"rows_per_call": 8} | options)
    for number, wish in enumerate(wishes):
        params = GenerationParams(
            **{"prompt": "a cat", "seed": 7, "num_inference_steps": 4, "height": 64, "width": 64} | wish
        )
        engine.add(engine.prepare(f"r{number}", params))
    items = []
    while engine.has_work:
        items += [event for event in engine.step() if isinstance(event, WorkItem)]
    return items


def test_a_work_item_says_whose_rows_it_had_and_padding_is_nobodys():
    items = drawn({"num_images": 2}, {"guidance_scale": 1.0})
    steps = [item.rows_by_request for item in items if item.kind == "step"]
    assert steps == [{"r0": 4, "r1": 1}] * 4
    assert {item.rows for item in items if item.kind == "step"} == {8}
    assert sorted(min(item.rows_by_request) for item in items if item.kind == "decode") == ["r0", "r0", "r1"]
    assert all(len(item.rows_by_request) == 1 for item in items if item.kind != "step")


def test_an_items_seconds_are_shared_by_rows_without_anything_left():
    item = WorkDone("step", 3.0, 8, 64, 64, {"a": 4, "b": 2})
    assert item.seconds_of("a") == 2.0
    assert item.seconds_of("b") == 1.0


async def test_the_engine_tells_every_job_the_work_that_it_had_a_part_in():
    info = EngineInfo("fake", "cpu", "CPU", "float32", 64, 64, 4, 2)
    executor = InProcessExecutor(partial(EngineWorker, Engine(FakeModel(), rows_per_call=4)), info)
    params = GenerationParams(prompt="a cat", seed=7, num_inference_steps=30, height=64, width=64)
    jobs = [Job(id=job_id, params=params, output_format="png") for job_id in "ab"]
    first, second = (job.attempt_id for job in jobs)
    told: dict[str, list[WorkDone]] = {first: [], second: []}

    async def draw(job: Job) -> None:
        async with aclosing(executor.run(job)) as events:
            async for event in events:
                if isinstance(event, WorkDone):
                    told[job.attempt_id].append(event)

    await executor.start()
    try:
        await asyncio.gather(*map(draw, jobs))
    finally:
        await executor.stop()
    for attempt_id, items in told.items():
        assert [item.kind for item in items].count("step") == 30
        assert {"encode", "decode"} < {item.kind for item in items}
        assert all(attempt_id in item.rows_by_job for item in items)
    shared = [item for item in told[first] if len(item.rows_by_job) == 2]
    assert shared, "they were to be drawn together"
    assert all(item.seconds_of(first) == item.seconds_of(second) == item.seconds / 2 for item in shared)
