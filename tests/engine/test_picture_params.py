"""What may be asked of the engine with pictures: what is refused, and what the rest costs."""

from __future__ import annotations

import dataclasses
import re

import msgspec
import pytest

from engine.errors import InvalidParamsError
from engine.params import Expand, GenerationParams, Hires, InputImage, MaskWish
from engine.picture_params import HIRES_STRENGTHS
from tests.engine.drawing import Params

NAME = "0123456789abcdef" * 4


def an_image(width: int = 96, height: int = 64, name: str = NAME) -> InputImage:
    return InputImage(sha256=name, width=width, height=height)


def a_mask(**wishes: object) -> MaskWish:
    return MaskWish(**({"image": an_image(name=NAME[::-1])} | wishes))


def a_second_leg(**wishes: object) -> Hires:
    return Hires(**({"width": 128, "height": 128, "steps": 3, "strength": 0.5} | wishes))


@pytest.mark.parametrize(
    ("message", "wishes"),
    [
        ("strength must come with image, not 0.5", {"strength": 0.5}),
        ("resize must come with image, not 'crop'", {"resize": "crop"}),
        ("mask must come with image, not '96x64'", {"mask": a_mask()}),
        ("expand must come with image, not [8, 0, 0, 0]", {"expand": Expand(left=8)}),
        ("upscaler must come with image, not 'lanczos'", {"upscaler": "lanczos"}),
        ("strength must be from 0 to 1, not 1.01", {"image": an_image(), "strength": 1.01}),
        ("strength must be from 0 to 1, not nan", {"image": an_image(), "strength": float("nan")}),
        ("strength must leave at least one of 4 steps, not 0.24", {"image": an_image(), "strength": 0.24}),
        ("resize must be one of stretch, crop, fill, not 'bend'", {"image": an_image(), "resize": "bend"}),
        ("mask must have the size of the image, 96x72, not '96x64'", {"image": an_image(96, 72), "mask": a_mask()}),
        (
            "expand must be left out with a mask, not [8, 0, 0, 0]",
            {"image": an_image(), "mask": a_mask(), "expand": Expand(left=8)},
        ),
        (
            "expand.left must leave room for the image within 64 pixels, both sides together, not 64",
            {"image": an_image(), "expand": Expand(left=32, right=32)},
        ),
        (
            "expand.top must leave room for the image within 64 pixels, both sides together, not 72",
            {"image": an_image(), "expand": Expand(bottom=72)},
        ),
        ("hires must be left out with an image, not '128x128'", {"image": an_image(), "hires": a_second_leg()}),
        ("hires.width must be from 192 to 2048, not 128", {"width": 192, "hires": a_second_leg()}),
        ("variation_strength must come with variation_seed, not 0.1", {"variation_strength": 0.1}),
        ("variation_strength must be from 0 to 1, not 1.1", {"variation_seed": 1, "variation_strength": 1.1}),
        ("variation_seed must be from 0 to 9223372036854775807, not -1", {"variation_seed": -1}),
        (
            "variation_seed must be from 0 to 9223372036854775806, not 9223372036854775807",
            {"variation_seed": 2**63 - 1, "num_images": 2},
        ),
        ("upscaler must be one of lanczos, not 'magic'", {"image": an_image(), "upscaler": "magic"}),
        (
            "mask must be left out with an upscaler, not 'lanczos'",
            {"image": an_image(), "upscaler": "lanczos", "mask": a_mask()},
        ),
        (
            "expand must be left out with an upscaler, not 'lanczos'",
            {"image": an_image(), "upscaler": "lanczos", "expand": Expand(left=8)},
        ),
        ("num_images must be 1 with an upscaler, not 2", {"image": an_image(), "upscaler": "lanczos", "num_images": 2}),
        ("width must be from 1 to 4096, not 4097", {"image": an_image(), "upscaler": "lanczos", "width": 4097}),
    ],
)
def test_a_wish_that_cannot_be_is_refused_by_field_rule_and_value(
    params: Params, message: str, wishes: dict[str, object]
):
    with pytest.raises(InvalidParamsError, match=f"^{re.escape(message)}$"):
        params(**wishes)


@pytest.mark.parametrize(
    ("message", "record", "values"),
    [
        ("image must be named by the SHA-256 of its pixels in hexadecimal, not '../x'", an_image(), {"sha256": "../x"}),
        ("image must be from 1 to 4096, not 0", an_image(), {"width": 0}),
        ("image must be from 1 to 4096, not 4097", an_image(), {"height": 4097}),
        ("mask_blur must be from 0 to 64, not 65", a_mask(), {"blur": 65}),
        ("mask_area must be one of whole, masked, not 'half'", a_mask(), {"area": "half"}),
        ("mask_padding must be from 0 to 512, not -1", a_mask(), {"padding": -1}),
        ("masked_content must be one of original, fill, noise, nothing, not 'x'", a_mask(), {"content": "x"}),
        ("expand.top must be from 0 to 2048, not -8", Expand(left=8), {"top": -8}),
        ("mask_blur must be from 0 to 64, not -1", Expand(left=8), {"blur": -1}),
        ("expand must let the picture grow at one side at least, not 0", Expand(left=8), {"left": 0}),
        ("hires.width must be from 64 to 2048, not 2056", a_second_leg(), {"width": 2056}),
        ("hires.steps must be from 1 to 150, not 0", a_second_leg(), {"steps": 0}),
        ("hires.strength must be from 0.003 to 1, not 0.002", a_second_leg(), {"strength": 0.002}),
        ("hires.prompt must not contain control characters or lone surrogates, not '\\x00'", a_second_leg(), {"prompt": "\0"}),  # noqa: E501
        ("hires.guidance_scale must be from 0 to 30, not 31", a_second_leg(), {"guidance_scale": 31}),
        ("hires.noise_schedule must come with hires.sampler, not 'karras'", a_second_leg(), {"noise_schedule": "karras"}),  # noqa: E501
        ("hires.noise_schedule must come with hires.sampler", a_second_leg(), {"sampler": "DDIM"}),
    ],
)  # fmt: skip
def test_a_record_checks_itself(message: str, record: MaskWish, values: dict[str, object]):
    with pytest.raises(InvalidParamsError, match=f"^{re.escape(message)}$"):
        dataclasses.replace(record, **values)


def test_a_hires_sampler_is_refused_under_its_own_path():
    with pytest.raises(InvalidParamsError) as caught:
        a_second_leg(sampler="Euler the Great", noise_schedule="default")
    assert caught.value.field == "hires.sampler"


@pytest.mark.parametrize(
    ("field", "wishes"),
    [
        ("expand.right", {"image": an_image(), "expand": Expand(right=12)}),
        ("hires.width", {"hires": a_second_leg(width=132)}),
    ],
)
def test_every_size_is_a_multiple_of_what_a_latent_stands_for(params: Params, field: str, wishes: dict[str, object]):
    with pytest.raises(InvalidParamsError, match=f"^{field} must be a multiple of 8, not "):
        params(**wishes).check_size_multiple(8)


def test_a_hires_picture_has_the_shape_of_the_first_one(params: Params):
    """
    Both sides times one scale, each rounded down; nothing is stretched or cut off.
    """
    for width, height in ((144, 96), (216, 144), (208, 144), (200, 136)):
        params(width=104, height=72, hires=a_second_leg(width=width, height=height)).check_size_multiple(8)
    with pytest.raises(InvalidParamsError, match=r"^hires\.height must be as large in proportion to hires\.width"):
        params(width=104, height=72, hires=a_second_leg(width=208, height=112)).check_size_multiple(8)


def test_an_image_that_is_only_enlarged_needs_no_prompt_and_no_multiple(params: Params):
    wish = params(prompt="", image=an_image(), upscaler="lanczos", width=4095, height=33)
    wish.check_size_multiple(8)
    assert (wish.legs, wish.model_calls, wish.progress_steps) == ((), 0, 1)
    assert wish.answer_size == (33, 4095)
    assert 0 < wish.work_units < 0.01


@pytest.mark.parametrize(("steps", "strength", "taken"), [(100, 0.29, 28), (10, 0.6, 6), (4, 1.0, 4), (4, 0.25, 1)])
def test_the_share_of_the_steps_is_cut_off_as_diffusers_does(params: Params, steps: int, strength: float, taken: int):
    """
    100 times 0.29 is 28.999999999999996 to a computer.
    """
    (leg,) = params(image=an_image(), strength=strength, num_inference_steps=steps).legs
    assert (leg.taken_steps, leg.begin) == (taken, steps - taken)


def test_only_inpainting_at_full_strength_starts_from_noise_alone(params: Params):
    def start(**wishes: object) -> str:
        return params(**wishes).legs[0].start

    assert start() == "noise"
    assert start(image=an_image(), strength=1.0) == "image"
    assert start(image=an_image(), mask=a_mask(), strength=0.99) == "image"
    assert start(image=an_image(), mask=a_mask(), strength=1.0) == "noise"
    assert start(image=an_image(), expand=Expand(left=8), strength=1.0) == "noise"


def test_a_second_leg_takes_exactly_its_steps_and_inherits_the_rest(params: Params):
    first, second = params(hires=a_second_leg(steps=5, strength=0.4)).legs
    assert (second.start, second.height, second.width) == ("leg", 128, 128)
    assert (second.schedule_steps, second.taken_steps, second.begin) == (12, 5, 7)
    own = {"start", "height", "width", "schedule_steps", "taken_steps", "num_steps_before"}
    for field in dataclasses.fields(first):
        assert field.name in own or getattr(first, field.name) == getattr(second, field.name)
    changed = a_second_leg(
        prompt="a dog", negative_prompt="fog", sampler="DDIM", noise_schedule="default", guidance_scale=1.0
    )
    _, second = params(hires=changed).legs
    assert (second.prompt, second.negative_prompt, second.num_rows) == ("a dog", None, 1)
    assert (second.sampler.name, second.noise_schedule, second.eta) == ("DDIM", "default", 0.0)
    assert a_second_leg(steps=5, strength=1.0).schedule_steps == 5


def test_enlarged_latents_are_usually_redrawn_more_than_pixels():
    assert HIRES_STRENGTHS["lanczos"] == 0.4
    assert {strength for upscaler, strength in HIRES_STRENGTHS.items() if upscaler != "lanczos"} == {0.7}


def test_what_is_counted_is_what_is_done(params: Params):
    """
    Model rows by the pixels of each leg; pictures that are read, and those decoded on the way.
    """
    size = {"num_inference_steps": 28, "height": 512, "width": 512}
    plain = params(**size)
    assert (plain.work_units, plain.progress_steps) == (1.0, 28)
    halved = params(**size, image=an_image(), strength=0.5)
    assert (halved.model_calls, halved.progress_steps) == (14, 15)
    assert halved.work_units == pytest.approx(0.5 + 1.4 / 56)
    four = params(**size, image=an_image(), strength=0.5, num_images=4)
    assert four.work_units == pytest.approx(4 * 0.5 + 1.4 / 56)  # the picture is read once
    large = a_second_leg(width=1024, height=1024, steps=14)
    assert params(**size, hires=large).work_units == pytest.approx(1 + 0.5 * 4)
    assert params(**size, hires=large).progress_steps == 28 + 14
    pixels = params(**size, num_images=2, hires=dataclasses.replace(large, upscaler="lanczos"))
    assert pixels.work_units == pytest.approx(2 * (1 + 0.5 * 4 + (3.1 + 4 * 1.4) / 56))
    assert pixels.progress_steps == 28 + 14 + 1
    unguided = dataclasses.replace(large, guidance_scale=1.0)
    assert params(**size, hires=unguided).work_units == pytest.approx(1 + 0.25 * 4)


def test_variations_share_the_seed_and_each_can_be_drawn_alone(params: Params):
    wish = params(seed=7, num_images=3, variation_seed=100, variation_strength=0.2)
    assert wish.seeds == (7, 7, 7)
    alone = wish.of_image(2)
    assert (alone.seed, alone.variation_seed, alone.num_images) == (7, 102, 1)
    assert params(seed=7, num_images=3).of_image(2) == params(seed=9)


def test_the_answer_has_the_size_of_the_last_thing_that_is_done(params: Params):
    assert params(width=96).answer_size == (64, 96)
    assert params(hires=a_second_leg(width=192, height=192)).answer_size == (192, 192)
    large = an_image(1000, 900)
    mask = a_mask(image=large, area="masked")
    assert params(image=large, mask=mask).answer_size == (900, 1000)
    assert params(image=large, mask=dataclasses.replace(mask, area="whole")).answer_size == (64, 64)


def test_inputs_are_named_once_each(params: Params):
    image, mask = an_image(), a_mask()
    assert params().inputs == ()
    assert params(image=image, mask=mask).inputs == (image, mask.image)
    assert params(image=image, mask=a_mask(image=image)).inputs == (image,)


def test_a_request_survives_its_way_through_json_and_one_of_before_is_still_read(params: Params):
    wish = params(image=an_image(), mask=a_mask(blur=4, area="masked"), variation_seed=3, variation_strength=0.5)
    for each in (wish, params(hires=a_second_leg()), params(image=an_image(), expand=Expand(top=16))):
        assert msgspec.json.decode(msgspec.json.encode(each), type=GenerationParams) == each
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(each), type=GenerationParams) == each
    stored = b'{"prompt":"a cat","negative_prompt":"","num_inference_steps":4,"guidance_scale":7.0,"height":64,"width":64,"seed":7,"num_images":1,"sampler":"DPMSolver++","noise_schedule":"karras","eta":null}'  # noqa: E501
    assert msgspec.json.decode(stored, type=GenerationParams) == params()
