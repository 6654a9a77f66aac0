"""A scene as a picture: the same scene always gives the same pixels."""

from dataclasses import dataclass
from random import Random
from typing import TypeAlias

import numpy as np
from PIL import Image

from training.dreamlet.drawing.canvas import Canvas
from training.dreamlet.drawing.catalog import DRAWINGS
from training.dreamlet.drawing.colours import Colour, Paint, darker
from training.dreamlet.drawing.figure import Figure
from training.dreamlet.drawing.flaws import FLAWS
from training.dreamlet.drawing.geometry import Points, ellipse, grown, shrunk_towards_light
from training.dreamlet.drawing.light import Light
from training.dreamlet.drawing.places import PLACES
from training.dreamlet.drawing.sky import paint_weather
from training.dreamlet.drawing.stage import Stage
from training.dreamlet.drawing.styles import STYLES, Style
from training.dreamlet.scenes import Scene, Subject
from training.dreamlet.vocabulary import COLOURS

HEIGHTS_ALONE = {"small": 0.28, "normal": 0.5, "big": 0.68}
HEIGHTS_OF_TWO = {"small": 0.22, "normal": 0.37, "big": 0.47}
"""In units of the picture's shorter side."""
CELL = 16
"""Pixels a latent: subjects stand on a grid of so many, so that a drawing gives the same latents wherever it is.
Between the grid's lines every drawing would have to be learnt in many half-shifted versions."""

Box: TypeAlias = tuple[float, float, float, float]
"""Left, bottom, right and top of a shape, in units of the picture's shorter side."""


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
    return render_with_boxes(scene, width, height)[0]


def render_with_boxes(scene: Scene, width: int = 256, height: int = 256) -> tuple[Image.Image, list[Box]]:
    """Draw a scene, and say where the shapes of its subjects are."""
    random = Random(scene.seed)  # noqa: S311 - pictures, not secrets
    style = STYLES[scene.style]
    place = PLACES[scene.place]
    canvas = Canvas(width, height, style.pixels_per_pixel)
    stage = Stage(canvas, scene.time, random)
    place.paint(stage)
    cell = CELL / min(width, height)
    base = _snapped(place.base * stage.height, cell)
    boxes: list[Box] = []
    for subject, pose in zip(scene.subjects, _poses(scene, stage, base, cell), strict=True):
        if place.casts_shadows:
            _paint_shadow(stage, pose, base)
        boxes += _paint_subject(canvas, subject, pose, style, stage.light)
    if place.front is not None:
        place.front(stage, base)
    if place.is_outdoors:
        paint_weather(stage)
    picture = style.finish(canvas.finished(), random)
    return FLAWS[scene.flaw](picture) if scene.flaw else picture, boxes


def _snapped(length: float, cell: float) -> float:
    """The nearest multiple of a cell."""
    return round(length / cell) * cell


def _poses(scene: Scene, stage: Stage, base: float, cell: float) -> list[Pose]:
    """Where each subject stands; one alone keeps within two cells of the middle, and looks towards it."""
    random = stage.random
    is_alone = len(scene.subjects) == 1
    heights = HEIGHTS_ALONE if is_alone else HEIGHTS_OF_TWO
    columns = (0.5,) if is_alone else (0.25, 0.75)
    poses = []
    for subject, column in zip(scene.subjects, columns, strict=False):
        drawing = DRAWINGS[subject.kind]
        size = heights[subject.size] * drawing.scale
        step = random.choice((-2, -1, 0, 1, 2)) if is_alone else 0
        floats = scene.place == "space"
        poses.append(
            Pose(
                x=_snapped(column * stage.width, cell) + step * cell,
                y=_snapped((stage.height - size) / 2, cell) if floats else base + drawing.lift * size,
                height=size,
                turn=random.choice((-0.2, 0.0, 0.2)) if floats else 0.0,
                is_mirrored=step > 0 or (not is_alone and column > 0.5),
            )
        )
    return poses


def _paint_shadow(stage: Stage, pose: Pose, base: float) -> None:
    reach = 0.42 * pose.height
    below = stage.canvas.colour_at(pose.x, base - 0.01)
    stage.canvas.fill(ellipse(pose.x + 0.03, base, reach, reach * 0.17), darker(below, 0.8))


def _paint_subject(canvas: Canvas, subject: Subject, pose: Pose, style: Style, light: Light) -> list[Box]:
    """Paint it; returns the boxes of its shapes."""
    boxes: list[Box] = []
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
            left, bottom = points.min(axis=0)
            right, top = points.max(axis=0)
            boxes.append((left, bottom, right, top))
            _paint_shape(canvas, points, light.on_subject(shape.colour), is_shaded=shape.is_shaded)
    return boxes


def _paint_shape(canvas: Canvas, points: Points, colour: Colour, *, is_shaded: bool) -> None:
    if is_shaded:
        canvas.fill(points, darker(colour, 0.84))
        points = shrunk_towards_light(points)
    canvas.fill(points, colour)
