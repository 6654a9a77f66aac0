"""Whose turn it is: latent sizes alternate, and no more pictures are begun than may be in flight."""

from __future__ import annotations

from engine.engine import Engine
from engine.events import StepTaken, WorkItem
from engine.models.fake import FakeModel
from tests.engine.drawing import Params, add_all, run


def test_sizes_take_turns_step_by_step(params: Params):
    """Neither the size that came first nor the one that came last keeps the other waiting for more than a step."""
    engine = Engine(FakeModel(), rows_per_call=4)
    add_all(engine, [params(height=height, num_inference_steps=4) for height in (64, 128)])
    heights = [event.height for event in run(engine) if isinstance(event, WorkItem) and event.kind == "step"]
    assert heights == [64, 128] * 4


def test_no_more_pictures_are_begun_than_may_be_in_flight(params: Params):
    """Though a call has rows for two, the second picture waits until the first is drawn."""
    engine = Engine(FakeModel(), rows_per_call=4, max_images_in_flight=1)
    add_all(engine, [params(num_inference_steps=3, seed=seed) for seed in range(3)])
    steps = [event.request_id for event in run(engine) if isinstance(event, StepTaken)]
    assert steps == ["0"] * 3 + ["1"] * 3 + ["2"] * 3
