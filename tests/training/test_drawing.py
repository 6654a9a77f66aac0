"""The renderer."""

from random import Random

import numpy as np
import pytest

from training.dreamlet.captions import draw_example
from training.dreamlet.drawing.catalog import DRAWINGS
from training.dreamlet.drawing.colours import Paint
from training.dreamlet.drawing.figure import Figure
from training.dreamlet.drawing.light import LIGHTS
from training.dreamlet.drawing.places import PLACES as PAINTERS
from training.dreamlet.drawing.render import render
from training.dreamlet.drawing.styles import STYLES
from training.dreamlet.scenes import Scene, Subject
from training.dreamlet.vocabulary import COLOURS, FLAW_WORDS, PLACES, STYLE_WORDS, SUBJECTS, TIMES


def pixels(scene, width=96, height=96):
    return np.asarray(render(scene, width, height)).astype(int)


def a_scene(**changed):
    values = {"subjects": (Subject("ball", "red"),), "place": "yard", "time": "day", "seed": 3, **changed}
    return Scene(**values)


def test_the_same_scene_gives_the_same_pixels():
    for seed in range(6):
        scene, _ = draw_example(Random(seed))
        assert (pixels(scene) == pixels(scene)).all()


def test_another_seed_composes_the_scene_differently():
    assert (pixels(a_scene(seed=1)) != pixels(a_scene(seed=2))).any()


def test_every_word_of_the_vocabulary_can_be_drawn():
    assert set(DRAWINGS) == set(SUBJECTS)
    assert set(PAINTERS) == set(PLACES)
    assert set(LIGHTS) == set(TIMES)
    assert set(STYLES) == set(STYLE_WORDS)


@pytest.mark.parametrize("kind", SUBJECTS)
def test_a_subject_is_seen_in_the_colour_asked_for(kind):
    empty = pixels(a_scene(subjects=(), place="plain"))
    red = pixels(a_scene(subjects=(Subject(kind, "red", "big"),), place="plain"))
    blue = pixels(a_scene(subjects=(Subject(kind, "blue", "big"),), place="plain"))
    covered = (red != empty).any(axis=2)
    differing = (red != blue).any(axis=2)
    assert covered.mean() > 0.03
    assert differing.sum() > 0.1 * covered.sum()
    # Glass, wood and shade may differ the other way, but not much.
    assert (red[..., 0] > blue[..., 0] + 40).sum() > 2 * (blue[..., 0] > red[..., 0] + 40).sum()
    assert (blue[..., 2] > red[..., 2] + 40).sum() > 2 * (red[..., 2] > blue[..., 2] + 40).sum()


@pytest.mark.parametrize("colour", COLOURS)
def test_a_ball_keeps_its_colour_at_any_time(colour):
    """
    Of all colours the nearest to the ball's must be its own, at night and at sunset too.
    """
    names = list(COLOURS)
    palette = np.array([COLOURS[name] for name in names])
    for time in TIMES:
        figure = Figure()
        DRAWINGS["ball"].draw(figure, Paint.of(COLOURS[colour]))
        seen = np.array(LIGHTS[time].on_subject(COLOURS[colour]))
        assert names[int(((palette - seen) ** 2).sum(axis=1).argmin())] == colour


@pytest.mark.parametrize("style", STYLE_WORDS)
def test_styles_draw_the_same_scene_differently(style):
    others = [name for name in STYLE_WORDS if name != style]
    own = pixels(a_scene(style=style))
    assert all(abs(own - pixels(a_scene(style=other))).mean() > 1 for other in others)


@pytest.mark.parametrize("flaw", FLAW_WORDS)
def test_a_flaw_spoils_the_picture_but_not_beyond_recognition(flaw):
    difference = abs(pixels(a_scene(flaw=flaw)) - pixels(a_scene())).mean()
    assert 0.5 < difference < 40


def test_night_is_dark_and_snow_is_white():
    for place in ("yard", "mountains", "beach", "desert", "forest", "city"):
        day = pixels(a_scene(subjects=(), place=place)).mean()
        assert pixels(a_scene(subjects=(), place=place, time="night")).mean() < 0.6 * day
        ground = pixels(a_scene(subjects=(), place=place, time="snow"))[72:].min(axis=2)
        assert ground.mean() > pixels(a_scene(subjects=(), place=place))[72:].min(axis=2).mean() + 30


def test_two_subjects_stand_left_and_right():
    scene = a_scene(subjects=(Subject("ball", "red"), Subject("ball", "blue")), place="plain")
    picture = pixels(scene, 128, 128)
    redness = picture[..., 0] - picture[..., 2]
    assert redness[:, :64].max() > 100
    assert redness[:, 64:].max() < 100
    assert redness[:, 64:].min() < -60


def test_pictures_have_the_size_asked_for():
    for width, height in ((96, 96), (144, 96), (96, 144), (64, 200)):
        assert render(a_scene(style="pixel"), width, height).size == (width, height)
        assert render(a_scene(style="watercolor"), width, height).size == (width, height)
