"""Requests with pictures in the engine: company, progress, what is encoded how often, variations, enlarging."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from engine.engine import Engine
from engine.errors import InvalidParamsError
from engine.events import EngineEvent, Failed, Finished, ImageDrawn, RanOutOfMemory, StepTaken, WorkItem
from engine.models.fake import FakeModel
from engine.models.stable_diffusion import StableDiffusion
from engine.params import Expand, GenerationParams, Hires, InputImage, MaskWish
from tests.engine.drawing import Params, images, run

IMAGE, MASK = "1" * 64, "2" * 64


def some_image(seed: int = 0, height: int = 80, width: int = 96) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def some_mask(height: int = 80, width: int = 96) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[20:50, 30:33] = 255
    return mask


INPUTS = {IMAGE: some_image(), MASK: some_mask()}
THE_IMAGE = InputImage(sha256=IMAGE, width=96, height=80)
THE_MASK = MaskWish(image=InputImage(sha256=MASK, width=96, height=80))


def mixed(params: Params) -> list[GenerationParams]:
    """Text, image, mask, canvas and hires requests of many samplers, guided and not."""
    hires = Hires(width=96, height=96, steps=2, strength=0.6)
    masked = replace(THE_MASK, area="masked", blur=2, padding=8, content="noise")
    other = {"sampler": "Euler a", "noise_schedule": "default"}
    heun = {"sampler": "Heun", "noise_schedule": "karras"}
    pixels = replace(hires, upscaler="lanczos", guidance_scale=1.0, prompt="a dog")
    return [
        params(seed=1),
        params(seed=2, image=THE_IMAGE, strength=0.5, **other),
        params(seed=3, image=THE_IMAGE, mask=THE_MASK, resize="crop"),
        params(seed=4, hires=hires, **heun),
        params(seed=5, image=THE_IMAGE, mask=masked, strength=1.0, guidance_scale=1.0, **other),
        params(seed=6, image=THE_IMAGE, expand=Expand(left=16, blur=1), strength=1.0, **heun),
        params(seed=7, hires=pixels, variation_seed=3, variation_strength=0.3),
        params(seed=8, guidance_scale=1.0, sampler="UniPC", noise_schedule="default", num_inference_steps=6),
        params(seed=9, image=THE_IMAGE, mask=replace(THE_MASK, content="nothing", invert=True), **other),
        params(seed=10, prompt="", image=THE_IMAGE, upscaler="lanczos", width=600, height=500),
    ]


def add(engine: Engine, index: int, wish: GenerationParams) -> None:
    engine.add(engine.prepare(str(index), wish, inputs=INPUTS))


def pixels_of(events: list[EngineEvent]) -> dict[str, bytes]:
    return {key[0]: data for key, data in images(events).items()}


@pytest.mark.parametrize("model_name", ["fake", "tiny_model", "dreamlet"])
def test_requests_of_all_kinds_give_the_same_bytes_in_any_company(
    request: pytest.FixtureRequest, params: Params, model_name: str
):
    """Alone, all at once, in reverse order, joining midway."""
    model = FakeModel() if model_name == "fake" else request.getfixturevalue(model_name)
    wishes = mixed(params)

    def engine() -> Engine:
        return Engine(model, rows_per_call=6, max_images_in_flight=4)

    alone: dict[str, bytes] = {}
    for index, wish in enumerate(wishes):
        lonely = engine()
        add(lonely, index, wish)
        alone |= pixels_of(run(lonely))
    assert len(set(alone.values())) == len(wishes)
    crowd = engine()
    for index, wish in enumerate(wishes):
        add(crowd, index, wish)
    assert pixels_of(run(crowd)) == alone
    reverse = engine()
    for index in reversed(range(len(wishes))):
        add(reverse, index, wishes[index])
    assert pixels_of(run(reverse)) == alone
    joined = engine()
    events: list[EngineEvent] = []
    for index, wish in enumerate(wishes):
        add(joined, index, wish)
        events += joined.step() + joined.step()
    assert pixels_of(events + run(joined)) == alone


def test_every_wish_about_pictures_changes_the_picture(params: Params):
    """The fake model shows all of its inputs."""
    base = params(seed=1, image=THE_IMAGE, mask=THE_MASK)
    other_inputs = {"3" * 64: some_image(1)}
    wishes = [
        base,
        replace(base, image=replace(THE_IMAGE, sha256="3" * 64)),
        replace(base, strength=0.5),
        replace(base, resize="fill"),
        replace(base, mask=None),
        *(
            replace(base, mask=replace(THE_MASK, **change))
            for change in (
                {"invert": True},
                {"blur": 3},
                {"area": "masked"},
                {"area": "masked", "padding": 0},
                {"content": "fill"},
                {"content": "noise"},
                {"content": "nothing"},
            )
        ),
        replace(base, variation_seed=4, variation_strength=0.2),
        replace(base, variation_seed=5, variation_strength=0.2),
        replace(base, variation_seed=5, variation_strength=0.4),
        replace(base, mask=None, expand=Expand(left=8)),
        replace(base, mask=None, expand=Expand(right=8)),
    ]
    engine = Engine(FakeModel())
    for index, wish in enumerate(wishes):
        engine.add(engine.prepare(str(index), wish, inputs=INPUTS | other_inputs))
    assert len(set(pixels_of(run(engine)).values())) == len(wishes)


@pytest.mark.parametrize("index", range(10))
def test_progress_counts_every_call_and_every_picture_that_is_read(params: Params, index: int):
    """From 1 to what the request says, one by one."""
    wish = mixed(params)[index]
    model = FakeModel()
    engine = Engine(model)
    add(engine, 0, wish)
    events = run(engine)
    steps = [(event.step, event.steps) for event in events if isinstance(event, StepTaken)]
    assert steps == [(step, wish.progress_steps) for step in range(1, wish.progress_steps + 1)]
    assert model.num_calls == wish.model_calls
    kinds = Counter(event.kind for event in events if isinstance(event, WorkItem))
    assert kinds["step"] == wish.model_calls
    assert kinds["encode_image"] == model.num_images == (wish.progress_steps - wish.model_calls if wish.legs else 0)
    assert kinds["upscale"] == (0 if wish.legs else 2)


def test_the_image_of_several_pictures_is_read_once_and_sampled_for_each(params: Params):
    model = FakeModel()
    engine = Engine(model)
    wish = params(image=THE_IMAGE, num_images=3, strength=0.25)
    add(engine, 0, wish)
    together = images(run(engine))
    assert model.num_images == 1
    for index in range(3):
        lonely = Engine(FakeModel())
        add(lonely, 0, wish.of_image(index))
        assert images(run(lonely))["0", 0] == together["0", index]
    assert len(set(together.values())) == 3


def test_variations_are_near_the_picture_and_end_at_the_other_one(params: Params):
    def picture(**wishes: object) -> np.ndarray:
        engine = Engine(FakeModel())
        engine.add(engine.prepare("0", params(**wishes)))
        return np.frombuffer(images(run(engine))["0", 0], np.uint8).astype(float)

    base, other = picture(seed=7), picture(seed=100)
    distances = [
        np.abs(picture(seed=7, variation_seed=100, variation_strength=share) - base).mean()
        for share in (0.0, 0.1, 0.5, 1.0)
    ]
    assert distances == sorted(distances)
    assert distances[0] == 0
    np.testing.assert_allclose(picture(seed=7, variation_seed=100, variation_strength=1.0), other, atol=1)


def test_enlarging_is_lanczos_and_needs_no_model(params: Params):
    model = FakeModel()
    engine = Engine(model)
    add(engine, 0, params(prompt="", image=THE_IMAGE, upscaler="lanczos", width=192, height=160))
    (drawn,) = [event for event in run(engine) if isinstance(event, ImageDrawn)]
    whole = Image.fromarray(INPUTS[IMAGE]).resize((192, 160), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(drawn.pixels, np.asarray(whole))
    assert (model.num_calls, model.num_images, model.num_prompts) == (0, 0, 0)


def test_pixels_outside_the_mask_equal_the_input_of_the_built_in_model(dreamlet: StableDiffusion, params: Params):
    """Whose autoencoder, as all do, changes every pixel that goes through it."""
    engine = Engine(dreamlet)
    for index, area in enumerate(("whole", "masked")):
        add(engine, index, params(image=THE_IMAGE, mask=replace(THE_MASK, area=area), width=96, height=80))
    for data in pixels_of(run(engine)).values():
        pixels = np.frombuffer(data, np.uint8).reshape(80, 96, 3)
        outside = INPUTS[MASK] == 0
        np.testing.assert_array_equal(pixels[outside], INPUTS[IMAGE][outside])
        assert (pixels[~outside] != INPUTS[IMAGE][~outside]).any()


def test_a_request_with_pictures_that_is_cancelled_or_fails_leaves_nothing(params: Params):
    class Blind(FakeModel):
        def encode_image(self, pixels: torch.Tensor, hidden: torch.Tensor | None = None):
            raise torch.OutOfMemoryError("no room for it (injected)")

    engine = Engine(Blind())
    add(engine, 0, params(image=THE_IMAGE))
    add(engine, 1, params())
    events = run(engine)
    (failed,) = [event for event in events if isinstance(event, Failed)]
    assert str(failed.error) == "the request does not fit into the device's memory"
    assert [event.request_id for event in events if isinstance(event, Finished)] == ["1"]
    engine = Engine(FakeModel())
    add(engine, 0, params(image=THE_IMAGE, num_images=2))
    engine.step()
    engine.step()
    engine.cancel("0")
    assert not engine.has_work


class TightEncoder(FakeModel):
    """Has no memory to read a picture beside others that are drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.engine: Engine | None = None

    def encode_image(self, pixels: torch.Tensor, hidden: torch.Tensor | None = None):
        if self.engine is not None and sum(picture.is_ready for picture in self.engine._batch_scheduler.running):
            raise torch.OutOfMemoryError("no room for it (injected)")
        return super().encode_image(pixels, hidden)


def test_a_picture_that_cannot_be_read_beside_others_waits_until_they_have_left(params: Params):
    hires = Hires(width=96, height=96, steps=2, strength=0.6, upscaler="lanczos")
    wishes = [
        params(seed=1),
        params(seed=2, image=THE_IMAGE, num_images=2),
        params(seed=3),
        params(seed=4, hires=hires),
    ]
    alone: dict[tuple[str, int], bytes] = {}
    for index, wish in enumerate(wishes):
        engine = Engine(FakeModel())
        add(engine, index, wish)
        alone |= images(run(engine))
    model = TightEncoder()
    engine = model.engine = Engine(model, rows_per_call=8, max_images_in_flight=4)
    for index, wish in enumerate(wishes):
        add(engine, index, wish)
    events = run(engine)
    assert images(events) == alone
    assert {event.kind for event in events if isinstance(event, RanOutOfMemory)} == {"encode_image"}


def test_tiles_take_turns_with_the_steps_of_others(params: Params):
    engine = Engine(FakeModel(), rows_per_call=4)
    add(engine, 0, params(prompt="", image=THE_IMAGE, upscaler="lanczos", width=2048, height=2048))
    for index in (1, 2):
        add(engine, index, params(seed=index, num_inference_steps=5))
    work: list[str] = []
    while engine.has_work:
        events = engine.step()
        work += [event.kind for event in events if isinstance(event, WorkItem)]
        if any(isinstance(event, Finished) and event.request_id == "2" for event in events):
            break
    assert all(kind != "upscale" or work[at - 1] != "upscale" for at, kind in enumerate(work) if at), work
    others = len(work) - work.count("upscale")
    assert others - 1 <= work.count("upscale") <= others + 1
    assert run(engine)
    assert not engine.has_work


def test_a_leg_that_is_over_keeps_nothing_in_memory(params: Params):
    for upscaler in ("latent", "lanczos"):
        hires = Hires(width=96, height=96, steps=2, strength=0.6, upscaler=upscaler)
        engine = Engine(FakeModel())
        request = engine.prepare("0", params(hires=hires))
        (picture,) = request.pictures
        first, second = picture.legs
        engine.add(request)
        while not second.has_begun:
            assert first.noise.entry.numel()
            engine.step()
        assert (first.slots.numel(), first.noise.entry.numel(), first.noise.steps.numel()) == (0, 0, 0)
        assert images(run(engine))


def test_a_picture_that_did_not_come_is_refused_when_the_request_is_prepared(params: Params):
    with pytest.raises(InvalidParamsError, match=f"^{re.escape('image must come with the request')}"):
        Engine(FakeModel()).prepare("0", params(image=THE_IMAGE))
