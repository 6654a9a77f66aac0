"""Pictures that are handed over before their last step: what they show, what is left out, and that others go on."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
import pytest

from engine.engine import Engine
from engine.events import EngineEvent, Finished, ImageDrawn, StepTaken
from engine.models.fake import FakeModel
from engine.params import GenerationParams, Hires
from tests.engine.drawing import Params, images, run
from tests.engine.test_pictures_in import INPUTS, THE_IMAGE, THE_MASK
from tests.engine.test_previews import Knowing


def drawn(
    engine: Engine, wish: GenerationParams, *, after: int, image_indices: Collection[int] | None = None
) -> list[EngineEvent]:
    """Every event of a request whose pictures are asked for as soon as its first picture has taken so many steps."""
    engine.add(engine.prepare("0", wish, inputs=INPUTS))
    events: list[EngineEvent] = []
    while not any(isinstance(event, StepTaken) and event.step >= after for event in events):
        events += engine.step()
    events += engine.finish_early("0", image_indices)
    return events + run(engine)


def pictures(events: list[EngineEvent]) -> list[np.ndarray]:
    return [event.pixels.astype(int) for event in events if isinstance(event, ImageDrawn)]


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_what_comes_early_is_the_decoded_estimate(params: Params, prediction_type: str):
    """
    A model that knows the picture from the start shows it, without noise, after its first step of twenty.
    """
    wish = params(num_inference_steps=20)
    engine = Engine(Knowing(prediction_type))
    [early] = pictures(drawn(engine, wish, after=1))
    engine.add(engine.prepare("whole", wish))
    [whole] = pictures(run(engine))
    assert np.abs(early - whole).max() <= 3


def test_it_takes_no_more_steps_and_the_request_ends(params: Params):
    events = drawn(Engine(FakeModel()), params(num_inference_steps=20), after=3)
    assert max(event.step for event in events if isinstance(event, StepTaken)) == 3
    assert isinstance(events[-1], Finished)


def test_pictures_of_which_nothing_shows_are_left_out(params: Params):
    events = drawn(Engine(FakeModel(), rows_per_call=2), params(num_images=3), after=2)
    assert [event.image_index for event in events if isinstance(event, ImageDrawn)] == [0]
    assert isinstance(events[-1], Finished)


def test_a_request_that_waits_ends_without_a_picture(params: Params):
    engine = Engine(FakeModel())
    engine.add(engine.prepare("0", params()))
    [end] = engine.finish_early("0")
    assert isinstance(end, Finished)
    assert not engine.has_work
    assert engine.finish_early("0") == [], "it is over"


def test_the_other_pictures_are_as_ever(params: Params):
    """
    Of its own request and of others.
    """
    wish = params(num_images=3, num_inference_steps=6)
    engine = Engine(FakeModel(), rows_per_call=8)
    engine.add(engine.prepare("neighbour", params(seed=50, num_inference_steps=6)))
    cut = images(drawn(engine, wish, after=2, image_indices=[1]))
    engine.add(engine.prepare("0", wish))
    engine.add(engine.prepare("neighbour", params(seed=50, num_inference_steps=6)))
    whole = images(run(engine))
    assert cut.keys() == whole.keys()
    assert {key for key in whole if cut[key] != whole[key]} == {("0", 1)}


@pytest.mark.parametrize("after", [1, 4, 5, 6])
@pytest.mark.parametrize("upscaler", ["latent", "lanczos"])
def test_hires_comes_in_the_size_of_the_answer_from_either_leg(params: Params, upscaler: str, after: int):
    hires = Hires(width=96, height=96, steps=4, strength=0.9, upscaler=upscaler)
    [early] = pictures(drawn(Engine(FakeModel()), params(hires=hires), after=after))
    assert early.shape == (96, 96, 3)
    assert early.std() > 0


def test_what_is_not_masked_stays_as_it_was(params: Params):
    wish = params(image=THE_IMAGE, mask=replace(THE_MASK, blur=0), width=96, height=80, num_inference_steps=8)
    events = drawn(Engine(FakeModel()), wish, after=3)
    [early] = pictures(events)
    image = INPUTS[THE_IMAGE.sha256].astype(int)
    marked = np.zeros((80, 96), bool)
    marked[20:50, 30:33] = True
    assert np.array_equal(early[~marked], image[~marked])
    assert not np.array_equal(early[marked], image[marked])
