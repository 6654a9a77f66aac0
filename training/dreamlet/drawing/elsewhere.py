"""The other places: the city, space, and a plain background."""

import math

from training.dreamlet.drawing.colours import darker, lighter, mix
from training.dreamlet.drawing.geometry import blob, box, ellipse, ribbon
from training.dreamlet.drawing.light import LAMPLIGHT, SNOW_COVER
from training.dreamlet.drawing.sky import paint_sky, stars
from training.dreamlet.drawing.stage import Stage


def city(stage: Stage) -> None:
    """Two rows of houses with windows, a street."""
    horizon = 0.34 * stage.height
    paint_sky(stage, horizon)
    random = stage.random
    for distance, heights, colours in (
        (0.85, (0.34, 0.5), ((150, 164, 196), (164, 172, 204))),
        (0.2, (0.16, 0.36), ((176, 128, 120), (120, 136, 172), (196, 164, 132), (140, 118, 150))),
    ):
        x = -random.uniform(0, 0.1)
        while x < stage.width:
            wide = random.uniform(0.14, 0.2)
            high = horizon + random.uniform(*heights)
            colour = random.choice(colours)
            stage.put(box(x, 0, x + wide, high), colour, distance)
            stage.put(box(x + wide * 0.82, 0, x + wide, high), darker(colour, 0.84), distance)
            if stage.time == "snow":
                stage.put(box(x, high - 0.012, x + wide, high + 0.012), SNOW_COVER)
            _windows(stage, x, wide, horizon + 0.05, high, distance)
            x += wide + random.choice((0.0, 0.012))
    stage.ground(box(0, -0.01, stage.width, horizon), (150, 152, 164))
    stage.ground(box(0, -0.01, stage.width, horizon - 0.05), (96, 98, 114))
    for k in range(math.ceil(stage.width / 0.3)):
        stage.put(box(0.05 + 0.3 * k, 0.035, 0.2 + 0.3 * k, 0.055), (240, 236, 220))


def space(stage: Stage) -> None:
    """Stars, a ringed planet, a moon, a nebula. Nothing stands anywhere."""
    random = stage.random
    stage.canvas.gradient((12, 10, 38), (28, 18, 66), (50, 26, 84), down_to=0.0)
    for _ in range(2):
        x, y = random.uniform(0, stage.width), random.uniform(0, stage.height)
        cloud = blob((x - 0.34, y), (x - 0.1, y + 0.13), (x + 0.2, y + 0.06), (x + 0.36, y - 0.03), (x + 0.05, y - 0.1))
        stage.canvas.fill(cloud, random.choice(((46, 28, 92), (34, 34, 92), (62, 28, 88))))
    stars(stage, 0.0, 46)
    side = random.choice((-1, 1))
    x, y = stage.width / 2 + side * random.uniform(0.26, 0.4), stage.height - random.uniform(0.14, 0.26)
    radius = random.uniform(0.07, 0.12)
    colour = random.choice(((226, 146, 96), (120, 176, 208), (196, 140, 190), (222, 196, 128)))
    stage.canvas.fill(ellipse(x, y, radius, radius), darker(colour))
    stage.canvas.fill(ellipse(x - 0.12 * radius, y + 0.12 * radius, radius * 0.84, radius * 0.84), colour)
    if random.random() < 0.5:
        ring = [(x + 1.75 * radius * math.cos(a), y + 0.5 * radius * math.sin(a) + 0.25 * radius * math.cos(a)) for a in
                [math.pi * 0.9 + k * math.pi * 1.2 / 12 for k in range(13)]]  # fmt: skip
        stage.canvas.fill(ribbon(ring, 0.016, smooth=False), lighter(colour))
    if random.random() < 0.6:
        x, y = stage.width / 2 - side * random.uniform(0.24, 0.42), random.uniform(0.1, 0.9) * stage.height
        stage.canvas.fill(ellipse(x, y, 0.045, 0.045), (176, 178, 196))
        stage.canvas.fill(ellipse(x - 0.012, y + 0.01, 0.012, 0.012), (140, 142, 166))


def plain(stage: Stage) -> None:
    """A studio: one soft colour, a faint disc behind the subject. No weather."""
    colour = stage.random.choice(
        ((250, 226, 204), (206, 228, 240), (216, 234, 214), (236, 220, 240), (246, 240, 222), (232, 234, 238))
    )
    stage.canvas.gradient(lighter(colour, 0.2), colour, colour, down_to=0.3)
    stage.canvas.fill(ellipse(stage.width / 2, stage.height * 0.5, 0.4, 0.4), lighter(colour, 0.5))


def _windows(stage: Stage, x: float, wide: float, low: float, high: float, distance: float) -> None:
    lit = stage.light.lamps_are_lit
    glass = mix(stage.light.on_scenery((206, 228, 244), distance), (40, 48, 80), 0.12)
    dark = mix(glass, (30, 36, 70), 0.5)
    for column in range(2):
        for row in range(int((high - 0.04 - low) / 0.075) + 1):
            left, bottom = x + wide * (0.16 + 0.34 * column), high - 0.07 - 0.075 * row
            if bottom < low:
                break
            glows = lit and stage.random.random() < 0.6
            stage.canvas.fill(
                box(left, bottom, left + wide * 0.2, bottom + 0.042), LAMPLIGHT if glows else dark if lit else glass
            )
