"""The warm-up: what it gets ready, that it steps aside, and that it changes no picture."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from engine.engine import Engine
from engine.errors import EngineError
from engine.models.fake import FakeModel
from engine.warm_up import WarmUp
from tests.engine.drawing import Params, add_all, images, run


def small_fake() -> FakeModel:
    """One whose native size is soon drawn."""
    model = FakeModel()
    model.info = replace(model.info, native_height=64, native_width=64)
    return model


def warm_up_of(engine: Engine) -> WarmUp:
    return WarmUp(engine, sampler="DPMSolver++", noise_schedule="karras", num_inference_steps=5)


def test_it_reads_the_default_table_and_tells_how_long_each_kind_of_work_takes():
    engine = Engine(small_fake())
    warm_up = warm_up_of(engine)
    pieces = []
    while not warm_up.is_done:
        pieces.append(warm_up.take_piece())
    assert not any(pieces[:-1])
    assert [(item.kind, item.rows, item.height, item.width) for item in pieces[-1]] == [
        ("encode", 2, 0, 0),
        ("step", 2, 64, 64),
        ("decode", 1, 64, 64),
    ]
    assert not engine.has_work
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.journey_cache.make_scheduler", None)  # whoever probes fails
        engine.prepare("default", warm_up._default)


def test_a_piece_is_one_call_of_a_network_at_most():
    model = small_fake()
    warm_up = warm_up_of(Engine(model))
    while not warm_up.is_done:
        calls = model.num_calls
        warm_up.take_piece()
        assert model.num_calls <= calls + 1
    assert model.num_calls == 2


@pytest.mark.parametrize("pieces", range(7))
def test_a_request_goes_first_and_its_picture_is_the_same(params: Params, pieces: int):
    """
    However far the warm-up had come; it is finished when the engine is idle again.
    """
    requests = [params(seed=seed, sampler=sampler) for seed, sampler in enumerate(["DPM++ 2M SDE", "DPMSolver++"])]
    cold = Engine(small_fake())
    add_all(cold, requests)
    expected = images(run(cold))
    model = small_fake()
    engine = Engine(model)
    warm_up = warm_up_of(engine)
    for _ in range(pieces):
        if not warm_up.is_done:
            warm_up.take_piece()
    warm_up.step_aside()
    calls = model.num_calls
    add_all(engine, requests)
    assert images(run(engine)) == expected
    assert model.num_calls == calls + 4 + 4, "the warm-up's picture was drawn on"
    while not warm_up.is_done:
        work = warm_up.take_piece()
    if pieces < 6:
        assert {item.kind for item in work} == {"encode", "step", "decode"}
    assert not engine.has_work


def test_a_model_that_cannot_draw_is_found_out():
    class Broken(FakeModel):
        def decode(self, latents: torch.Tensor) -> torch.Tensor:
            raise EngineError("the decoder is broken")

    warm_up = warm_up_of(Engine(Broken()))
    with pytest.raises(EngineError, match="the decoder is broken"):
        for _ in range(10):
            warm_up.take_piece()
