"""What may be asked of the engine, and how a refusal is worded."""

from __future__ import annotations

import pytest

from engine.engine import Engine
from engine.errors import InvalidParamsError
from engine.models.fake import FakeModel
from tests.engine.drawing import Params


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", "x" * 8001),
        ("prompt", "a\x00cat"),
        ("prompt", "a \ud800 cat"),
        ("negative_prompt", "\x1b[2J"),
        ("num_inference_steps", 0),
        ("num_inference_steps", 151),
        ("guidance_scale", -0.1),
        ("guidance_scale", float("nan")),
        ("guidance_scale", float("inf")),
        ("height", 56),
        ("height", 2056),
        ("width", 63),
        ("seed", -1),
        ("seed", 2**63),
        ("num_images", 0),
        ("num_images", 65),
        ("sampler", "Euler the Great"),
        ("noise_schedule", "lumpy"),
        ("eta", 0.5),
    ],
)
def test_a_wish_beyond_the_limits_is_refused_by_field_rule_and_value(params: Params, field: str, value: object):
    with pytest.raises(InvalidParamsError) as caught:
        params(**{field: value})
    assert caught.value.field == field
    assert repr(caught.value.value).strip("'") in repr(value)
    assert str(caught.value).startswith(f"{field} must ")


@pytest.mark.parametrize(("model_id", "factor"), [("fake", 8), ("fake-16", 16)])
@pytest.mark.parametrize("field", ["height", "width"])
def test_a_size_is_a_multiple_of_what_a_latent_of_the_model_stands_for(
    params: Params, model_id: str, factor: int, field: str
):
    engine = Engine(FakeModel(model_id))
    for size in (64, 64 + factor, 160):
        assert engine.prepare("a", params(**{field: size})).pictures
    for size in (65, 64 + factor // 2, 160 - 4):
        with pytest.raises(InvalidParamsError, match=f"^{field} must be a multiple of {factor}, not {size}$"):
            engine.prepare("a", params(**{field: size}))


def test_the_seed_of_the_last_picture_counts_too(params: Params):
    assert params(seed=2**63 - 8, num_images=8).seeds[-1] == 2**63 - 1
    with pytest.raises(InvalidParamsError, match="seed must be from 0 to 9223372036854775800"):
        params(seed=2**63 - 7, num_images=8)


def test_a_message_quotes_only_the_beginning_of_a_long_value(params: Params):
    with pytest.raises(InvalidParamsError) as caught:
        params(prompt="x" * 100_000)
    assert len(str(caught.value)) < 200


def test_work_units_count_model_rows_and_pixels(params: Params):
    """28 guided steps at 512x512 are the unit."""
    unit = params(num_inference_steps=28, height=512, width=512, guidance_scale=7.0)
    assert unit.work_units == 1.0
    assert params(num_inference_steps=28, height=512, width=512, guidance_scale=1.0).work_units == 0.5
    assert params(num_inference_steps=14, height=256, width=512, num_images=4).work_units == 1.0


def test_text_in_any_script_is_a_prompt(params: Params):
    assert params(prompt="Eine Katze,\n猫\tна коврике 🐈").prompt


def test_eta_is_for_the_samplers_that_take_it(params: Params):
    assert params(sampler="DDIM", noise_schedule="default", eta=1.0).eta == 1.0
    with pytest.raises(InvalidParamsError, match=r"eta must be from 0 to 1, not 1\.5"):
        params(sampler="TCD", noise_schedule="default", eta=1.5)


def test_an_error_without_a_value_quotes_none():
    assert str(InvalidParamsError("image", "is required", None)) == "image is required"
    assert str(InvalidParamsError("width", "must be a multiple of 8", 65)) == "width must be a multiple of 8, not 65"
