"""A scene as a picture: the same scene always gives the same pixels."""

from dataclasses import dataclass
from random import Random

import numpy as np
from PIL import Image

from training.dreamlet.drawing.canvas import Canvas
from training.dreamlet.drawing.catalog import DRAWINGS
from training.dreamlet.drawing.colours import Colour, Paint, darker
from training.dreamlet.drawing.figure import Figure
from training.dreamlet.drawing.flaws import FLAWS
from training.dreamlet.drawing.geometry import Points, ellipse, grown, shrunk_towards_light
from training.dreamlet.drawing.light import Light
from training.dreamlet.drawing.places import PLACES, Place
from training.dreamlet.drawing.sky import paint_weather
from training.dreamlet.drawing.stage import Stage
from training.dreamlet.drawing.styles import STYLES, Style
from training.dreamlet.scenes import Scene, Subject
from training.dreamlet.vocabulary import COLOURS

HEIGHTS_ALONE = {"small": 0.28, "normal": 0.5, "big": 0.68}
HEIGHTS_OF_TWO = {"small": 0.22, "normal": 0.37, "big": 0.47}
"""In units of the picture's shorter side."""


@dataclass(frozen=True, slots=True)
class Pose:
    """Where a figure goes: its own coordinates to the picture's."""

    x: float
    y: float
    height: float
    turn: float
    """Radians, counter-clockwise, around its middle."""
    is_mirrored: bool

    def place(self, points: Points) -> Points:
        """A figure's points in the picture, (N, 2), in units."""
        if self.is_mirrored:
            points = points * (-1.0, 1.0)
        if self.turn:
            cos, sin = np.cos(self.turn), np.sin(self.turn)
            points = (points - (0.0, 0.5)) @ np.array([[cos, sin], [-sin, cos]]) + np.array((0.0, 0.5))
        placed: Points = points * self.height + np.array((self.x, self.y))
        return placed


def render(scene: Scene, width: int = 256, height: int = 256) -> Image.Image:
    """Draw a scene.

    Args:
        scene: what to draw.
        width: pixels, a multiple of 8.
        height: pixels, a multiple of 8.
    """
    random = Random(scene.seed)  # noqa: S311 - pictures, not secrets
    style = STYLES[scene.style]
    place = PLACES[scene.place]
    canvas = Canvas(width, height, style.pixels_per_pixel)
    stage = Stage(canvas, scene.time, random)
    place.paint(stage)
    base = _base(stage, place)
    for subject, pose in zip(scene.subjects, _poses(scene, stage, base), strict=True):
        if place.casts_shadows:
            _paint_shadow(stage, pose, base)
        _paint_subject(canvas, subject, pose, style, stage.light)
    if place.front is not None:
        place.front(stage, base)
    if place.is_outdoors:
        paint_weather(stage)
    picture = style.finish(canvas.finished(), random)
    return FLAWS[scene.flaw](picture) if scene.flaw else picture


def _base(stage: Stage, place: Place) -> float:
    return (place.base + stage.random.uniform(-0.02, 0.025)) * stage.height


def _poses(scene: Scene, stage: Stage, base: float) -> list[Pose]:
    random = stage.random
    alone = len(scene.subjects) == 1
    heights = HEIGHTS_ALONE if alone else HEIGHTS_OF_TWO
    columns = (0.5,) if alone else (0.27, 0.73)
    sway = 0.13 if alone else 0.035
    poses = []
    for subject, column in zip(scene.subjects, columns, strict=False):
        drawing = DRAWINGS[subject.kind]
        size = heights[subject.size] * drawing.scale * random.uniform(0.92, 1.08)
        floats = scene.place == "space"
        y = base + drawing.lift * size
        if floats:
            y = stage.height * 0.5 - size * 0.5 + random.uniform(-0.08, 0.06)
        poses.append(
            Pose(
                x=(column + random.uniform(-sway, sway)) * stage.width,
                y=y,
                height=size,
                turn=random.uniform(-0.3, 0.3) if floats else 0.0,
                is_mirrored=random.random() < 0.5,
            )
        )
    return poses


def _paint_shadow(stage: Stage, pose: Pose, base: float) -> None:
    reach = 0.42 * pose.height
    below = stage.canvas.colour_at(pose.x, base - 0.01)
    stage.canvas.fill(ellipse(pose.x + 0.03, base, reach, reach * 0.17), darker(below, 0.8))


def _paint_subject(canvas: Canvas, subject: Subject, pose: Pose, style: Style, light: Light) -> None:
    figure = Figure()
    colour = COLOURS[subject.colour]
    DRAWINGS[subject.kind].draw(figure, Paint.of(colour))
    outline = light.on_subject(style.outline_colour(colour))
    for part in figure.parts:
        placed = [(shape, pose.place(shape.points)) for shape in part]
        if style.outline:
            for shape, points in placed:
                if shape.is_outlined:
                    canvas.fill(grown(points, style.outline), outline)
        for shape, points in placed:
            _paint_shape(canvas, points, light.on_subject(shape.colour), is_shaded=shape.is_shaded)


def _paint_shape(canvas: Canvas, points: Points, colour: Colour, *, is_shaded: bool) -> None:
    if is_shaded:
        canvas.fill(points, darker(colour, 0.84))
        points = shrunk_towards_light(points)
    canvas.fill(points, colour)
