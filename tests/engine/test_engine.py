"""The engine: bytes in any company, order, joining, progress."""

from __future__ import annotations

import random

import pytest

from engine.engine import Engine
from engine.events import EngineEvent, Finished, ImageDrawn, StepTaken, WorkItem
from engine.models.fake import FakeModel
from tests.engine.drawing import add_all, alone, images, run


def test_all_at_once_gives_the_bytes_of_each_alone(mixed, lonely):
    engine = Engine(FakeModel(), rows_per_call=6)
    add_all(engine, mixed)
    assert images(run(engine)) == lonely
    assert len(set(lonely.values())) == len(mixed)


def test_the_order_of_arrival_changes_no_bytes(mixed, lonely):
    engine = Engine(FakeModel(), rows_per_call=6, max_images_in_flight=5)
    for index in reversed(range(len(mixed))):
        engine.add(engine.prepare(str(index), mixed[index]))
    assert images(run(engine)) == lonely


def test_joining_midway_changes_no_bytes(mixed, lonely):
    engine = Engine(FakeModel(), rows_per_call=6, max_images_in_flight=4)
    events: list[EngineEvent] = []
    for index, request in enumerate(mixed):
        engine.add(engine.prepare(str(index), request))
        events += engine.step() + engine.step()
    assert images(events + run(engine)) == lonely


def test_a_request_for_many_pictures_is_as_many_requests_with_the_next_seeds(params):
    engine = Engine(FakeModel(), rows_per_call=6)
    add_all(engine, [params(seed=40, num_images=3)])
    together = images(run(engine))
    assert [together["0", i] for i in range(3)] == [alone(params(seed=40 + i)) for i in range(3)]


def test_every_wish_shows_in_the_picture(params):
    """A fake that ignored an input would let a swapped one pass unseen."""
    changes = [
        {},
        {"prompt": "a dog"},
        {"negative_prompt": "blurry"},
        {"seed": 8},
        {"guidance_scale": 3.0},
        {"num_inference_steps": 5},
        {"sampler": "Euler", "noise_schedule": "default"},
        {"noise_schedule": "default"},
    ]
    assert len({alone(params(**change)) for change in changes}) == len(changes)


def test_eta_changes_the_picture_in_one_engine(params):
    """Tables are kept, and eta is part of what they are kept by."""
    engine = Engine(FakeModel(), rows_per_call=6)
    wishes = [params(sampler="DDIM", noise_schedule="default", eta=eta) for eta in (None, 0.0, 0.5, 1.0)]
    add_all(engine, wishes)
    drawn = list(images(run(engine)).values())
    assert drawn == [alone(wish) for wish in wishes]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 3


def test_a_batch_costs_far_fewer_model_calls_than_its_requests_one_by_one(params):
    requests = [params(seed=seed, num_inference_steps=28) for seed in range(8)]
    one_by_one, together = FakeModel(), FakeModel()
    for request in requests:
        engine = Engine(one_by_one, rows_per_call=16)
        add_all(engine, [request])
        run(engine)
    engine = Engine(together, rows_per_call=16)
    add_all(engine, requests)
    run(engine)
    assert one_by_one.num_calls == 8 * 28
    assert together.num_calls <= one_by_one.num_calls / 3


def test_every_call_of_one_size_has_the_same_number_of_rows(mixed):
    engine = Engine(FakeModel(), rows_per_call=6)
    add_all(engine, mixed)
    steps = [event for event in run(engine) if isinstance(event, WorkItem) and event.kind == "step"]
    assert {event.rows for event in steps} == {6}


def test_without_reproducible_calls_nothing_is_padded(params):
    engine = Engine(FakeModel(), rows_per_call=6, is_reproducible=False)
    add_all(engine, [params(guidance_scale=1.0)])
    assert {event.rows for event in run(engine) if isinstance(event, WorkItem) and event.kind == "step"} == {1}


def test_a_newcomer_joins_at_the_next_step(params):
    engine = Engine(FakeModel(), rows_per_call=4)
    engine.add(engine.prepare("old", params(num_inference_steps=20)))
    for _ in range(6):
        engine.step()
    engine.add(engine.prepare("new", params(num_inference_steps=3)))
    order = [event.request_id for event in run(engine) if isinstance(event, Finished)]
    assert order == ["new", "old"]


def test_no_size_starves_another(params):
    """A stream of small pictures does not hold up a tall one: sizes take turns."""
    engine = Engine(FakeModel(), rows_per_call=4, max_images_in_flight=8)
    engine.add(engine.prepare("tall", params(height=128, num_inference_steps=10)))
    small = 0
    for _ in range(200):
        while len([state for state in engine._batch_scheduler.running if state.height == 64]) < 4:
            engine.add(engine.prepare(f"small {small}", params(num_inference_steps=10)))
            small += 1
            engine._batch_scheduler.admit()
        if any(isinstance(event, Finished) and event.request_id == "tall" for event in engine.step()):
            break
    else:
        pytest.fail("the tall picture never came")


def test_pictures_beyond_the_limit_wait_in_order(params):
    engine = Engine(FakeModel(), rows_per_call=4, max_images_in_flight=2)
    add_all(engine, [params(seed=seed) for seed in range(5)])
    order = [event.request_id for event in run(engine) if isinstance(event, Finished)]
    assert order == ["0", "1", "2", "3", "4"]


def test_a_cancelled_request_takes_no_further_step(params):
    engine = Engine(FakeModel(), rows_per_call=4)
    add_all(engine, [params(), params(seed=8)])
    events: list[EngineEvent] = []
    while not any(isinstance(event, StepTaken) for event in events):
        events = engine.step()
    engine.cancel("0")
    rest = run(engine)
    assert {event.request_id for event in rest if isinstance(event, StepTaken | ImageDrawn | Finished)} == {"1"}
    assert images(rest) == {("1", 0): alone(params(seed=8))}


def test_a_cancel_at_any_instant_leaves_nothing_behind_and_disturbs_nobody(params):
    expected = alone(params(seed=1))
    dice = random.Random(5)
    for _ in range(60):
        engine = Engine(FakeModel(), rows_per_call=4)
        add_all(engine, [params(num_images=2), params(seed=1)])
        events: list[EngineEvent] = []
        for _ in range(dice.randrange(20)):
            events += engine.step()
        engine.cancel("0")
        events += run(engine)
        drawn = {key: pixels for key, pixels in images(events).items() if key[0] == "1"}
        assert drawn == {("1", 0): expected}
        assert not engine._requests


def test_an_unknown_cancel_is_ignored():
    Engine(FakeModel()).cancel("nobody")


def test_progress_counts_the_model_calls(params):
    engine = Engine(FakeModel())
    add_all(engine, [params(num_inference_steps=3)])
    steps = [(event.step, event.steps) for event in run(engine) if isinstance(event, StepTaken)]
    assert steps == [(1, 3), (2, 3), (3, 3)]


def test_a_decode_does_not_hold_up_the_others_for_long(params):
    """Between two decodes the running batch takes a step."""
    engine = Engine(FakeModel(), rows_per_call=8)
    requests = [params(seed=seed, num_inference_steps=2) for seed in range(3)]
    add_all(engine, [*requests, params(num_inference_steps=9)])
    kinds = [event.kind for event in run(engine) if isinstance(event, WorkItem)]
    assert "decode,decode" not in ",".join(kinds[: kinds.index("decode") + 5])


def test_each_text_is_read_once(params):
    model = FakeModel()
    engine = Engine(model, rows_per_call=8)
    add_all(engine, [params(prompt="a cat", negative_prompt="blurry", seed=seed, num_images=2) for seed in range(4)])
    run(engine)
    assert model.num_prompts == 2


def test_phase_times_and_truncated_tokens_are_told(params):
    ticks = iter(range(10_000))
    engine = Engine(FakeModel(), clock=lambda: float(next(ticks)))
    add_all(engine, [params(prompt="word " * 80, num_inference_steps=3)])
    finished = next(event for event in run(engine) if isinstance(event, Finished))
    assert finished.truncated_tokens == 5
    assert (finished.times.encode_s, finished.times.denoise_s, finished.times.decode_s) == (1.0, 5.0, 1.0)
