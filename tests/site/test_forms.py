"""What the form takes, what it says when it does not, and the wish it comes to."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from django.contrib.staticfiles import finders
from PIL import Image

from newdreamflow.dreams.forms import DreamForm, dimensions, first_values, values_of
from newdreamflow.dreams.models import MAX_SEED, SIZES, Dream
from newdreamflow.dreams.styles import STYLES, picture_of


def filled(**changes):
    return {
        name: value for name, value in (first_values() | {"prompt": "a cat"} | changes).items() if value is not None
    }


def wish(**changes):
    form = DreamForm(filled(**changes))
    assert form.is_valid(), form.errors
    return form.wish()


def test_a_prompt_is_enough():
    made = wish(prompt="  a cat\r\non a mat ")
    assert made.prompt == "a cat\non a mat"
    assert (made.num_inference_steps, made.guidance_scale, made.num_images) == (28, 7.0, 1)
    assert (made.seed, made.style, made.negative_prompt, made.is_public, made.tags) == (None, "", "", False, [])


def test_the_size_that_the_form_begins_with_is_the_sites_own(settings):
    settings.DREAMS_DEFAULT_SIZE = 500  # the nearest that there is
    assert (wish().width, wish().height) == (512, 512)


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        ("square", 256, (256, 256)),
        ("landscape", 384, (384, 256)),
        ("portrait", 768, (512, 768)),
        ("portrait", 256, (192, 256)),
    ],
)
def test_shape_and_size_make_width_and_height(shape, size, expected):
    made = wish(shape=shape, size=size)
    assert (made.width, made.height) == expected
    assert {made.width, made.height} <= set(SIZES)


def test_every_oblong_is_longer_than_wide():
    for size in SIZES[1:]:
        width, height = dimensions("landscape", size)
        assert width > height
        assert dimensions("portrait", size) == (height, width)


INVISIBLE = ("\u200b", "\u200d\ufeff", "\u00ad", "\u2060 \u202e", "\u3164", "\u2800\u2800", "\U000e0041", "\u0301")


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("prompt", "  \n ", "Say in a few words"),
        ("prompt", "x" * 1001, "at most 1000 characters, not 1001"),
        ("prompt", "\x07\x07", "Say in a few words"),
        *(("prompt", invisible, "Say in a few words") for invisible in INVISIBLE),
        ("style", "cubist", "Must be one of the choices offered"),
        ("shape", "round", "Must be one of the choices offered"),
        ("size", "255", "Must be one of the choices offered"),
        ("size", "1e3", "Must be one of the choices offered"),
        ("num_inference_steps", 0, "at least 1, not 0"),
        ("num_inference_steps", 101, "at most 100, not 101"),
        ("guidance_scale", "nan", "Must be a number"),
        ("guidance_scale", -1, "at least 0"),
        ("guidance_scale", 31, "at most 30, not 31"),
        ("seed", -1, "at least 0"),
        ("seed", MAX_SEED + 1, "at most"),
        ("num_images", 5, "Must be one of the choices offered"),
        ("tags", "a,b,c,d,e,f,g,h,i", "At most 8 tags, not 9."),
        ("submission", "no-uuid", "the form had expired"),
    ],
)
def test_what_cannot_be_is_said_at_its_field(field, value, words):
    form = DreamForm(filled(**{field: value}))
    assert not form.is_valid()
    assert list(form.errors) == [field]
    assert words in form.errors[field][0]


def test_characters_that_nobody_sees_do_not_reach_the_gpu_server():
    assert wish(prompt="a\x08cat\x9f on\ta mat").prompt == "a cat  on\ta mat"


def test_tags_are_written_as_in_addresses_and_each_once():
    assert wish(tags="Sea, the  Sea,sea, été , -- ,Ж").tags == ["sea", "the-sea", "été", "ж"]


def test_a_tag_is_never_longer_than_its_column():
    [tag] = wish(tags="x" * 60).tags
    assert len(tag) == 40


def test_the_same_form_sent_twice_is_one_submission_and_a_changed_one_another():
    submission = str(uuid.uuid4())

    def name(**changes):
        form = DreamForm(filled(submission=submission, **changes))
        assert form.is_valid()
        return form.submission_of(form.wish())

    assert name() == name()
    assert len({name(), name(seed=1), name(prompt="a dog"), name(is_public="on"), name(tags="sea")}) == 5


def test_a_dream_fills_the_form_that_changes_it(db, user):
    dream = Dream.objects.create(
        user=user, prompt="a cat", negative_prompt="dogs", style="pencil", width=256, height=384, seed=7, num_images=3
    )
    values = values_of(dream)
    assert (values["shape"], values["size"], values["seed"], values["num_images"]) == ("portrait", 384, 7, 3)
    form = DreamForm({name: value for name, value in values.items() if name != "unfold"})
    assert form.is_valid(), form.errors
    again = form.wish()
    for name in ("prompt", "negative_prompt", "style", "width", "height", "seed", "num_images", "guidance_scale"):
        assert getattr(again, name) == getattr(dream, name), name


def test_a_style_that_is_not_known_any_more_is_left_out(db, user):
    assert values_of(Dream.objects.create(user=user, prompt="a cat", style="cubist", seed=1))["style"] == ""


def test_finer_settings_unfold_when_something_is_wrong_in_there():
    assert not DreamForm(filled()).is_unfolded
    assert not DreamForm(filled(prompt="")).is_unfolded
    assert DreamForm(filled(seed=-1)).is_unfolded


@pytest.mark.parametrize("style", ["", *STYLES])
def test_every_style_has_a_small_picture(style):
    path = Path(finders.find(picture_of(style)))
    assert path.stat().st_size <= 12 * 1024
    with Image.open(path) as picture:
        assert picture.size == (256, 256)
