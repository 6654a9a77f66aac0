"""The plants, the part that one names by colour in the colour asked for. They grow from y = 0."""

import math

from training.dreamlet.drawing.colours import WHITE, Colour, Paint, darker, luminance
from training.dreamlet.drawing.figure import Figure
from training.dreamlet.drawing.geometry import arch, blob, box, ellipse, polygon, ribbon

STEM: Colour = (84, 150, 78)
TRUNK: Colour = (122, 82, 56)
CREAM: Colour = (244, 228, 200)


def tree(figure: Figure, paint: Paint) -> None:
    """A broad crown of leaves."""
    figure.solid(polygon((-0.09, 0), (-0.055, 0.46), (0.055, 0.46), (0.09, 0)), TRUNK)
    figure.solid(ribbon([(0, 0.26), (0.14, 0.44)], 0.05, 0.035), TRUNK)
    figure.mark(polygon((0.02, 0), (0.015, 0.4), (0.055, 0.4), (0.09, 0)), darker(TRUNK))
    figure.part()
    crown = (
        (-0.24, 0.52, 0.2),
        (0.24, 0.52, 0.2),
        (-0.14, 0.76, 0.19),
        (0.15, 0.75, 0.19),
        (0, 0.84, 0.17),
        (0, 0.58, 0.22),
    )
    for x, y, radius in crown:
        figure.solid(ellipse(x, y, radius, radius), paint.dark)
    for x, y, radius in crown:
        figure.mark(ellipse(x - 0.03, y + 0.035, radius * 0.86, radius * 0.84), paint.main)
    for x, y, radius in ((-0.16, 0.8, 0.08), (0.08, 0.88, 0.055), (-0.28, 0.58, 0.06)):
        figure.mark(ellipse(x, y, radius, radius * 0.72), paint.light)


def flower(figure: Figure, paint: Paint) -> None:
    """One large bloom on a stem with two leaves."""
    figure.solid(ribbon([(0, 0), (0.03, 0.25), (0, 0.6)], 0.06), STEM)
    figure.round(blob((0.01, 0.14), (0.16, 0.16), (0.3, 0.3), (0.12, 0.3)), STEM)
    figure.round(blob((0.01, 0.2), (-0.14, 0.2), (-0.28, 0.36), (-0.1, 0.36)), STEM)
    figure.part()
    for index in range(8):
        turn = index * math.pi / 4 + 0.2
        figure.round(ellipse(0.2 * math.cos(turn), 0.7 + 0.2 * math.sin(turn), 0.13, 0.085, turn), paint.main)
        figure.line(
            [
                (0.12 * math.cos(turn), 0.7 + 0.12 * math.sin(turn)),
                (0.24 * math.cos(turn), 0.7 + 0.24 * math.sin(turn)),
            ],
            paint.dark,
            0.016,
        )
    yellowish = paint.main[0] > 200 and paint.main[1] > 110 and paint.main[2] < 120
    heart = (126, 78, 50) if yellowish else (252, 206, 82)
    figure.disc(0, 0.7, 0.125, darker(heart))
    figure.disc(-0.012, 0.712, 0.108, heart)


def mushroom(figure: Figure, paint: Paint) -> None:
    """A toadstool with pale spots."""
    figure.round(blob((-0.11, 0.5), (-0.12, 0.2), (-0.17, 0.02), (0.17, 0.02), (0.12, 0.2), (0.11, 0.5)), CREAM)
    figure.mark(blob((-0.13, 0.46), (0.13, 0.46), (0.17, 0.36), (0, 0.32), (-0.17, 0.36)), darker(CREAM, 0.86))
    figure.part()
    figure.round(
        blob(
            (-0.48, 0.46), (-0.42, 0.68), (-0.22, 0.88), (0, 0.93), (0.22, 0.88), (0.42, 0.68), (0.48, 0.46), (0, 0.42)
        ),
        paint.main,
    )
    spots = WHITE if luminance(paint.main) < 205 else (226, 176, 128)
    for x, y, radius in (
        (-0.22, 0.66, 0.075),
        (0.06, 0.76, 0.085),
        (0.29, 0.6, 0.06),
        (-0.02, 0.54, 0.05),
        (-0.36, 0.53, 0.04),
    ):
        figure.mark(ellipse(x, y, radius, radius * 0.86), spots)


def cactus(figure: Figure, paint: Paint) -> None:
    """A saguaro with two arms, in a pot-less row with none: it grows where it stands."""
    figure.solid(ribbon([(-0.02, 0.34), (-0.3, 0.36), (-0.32, 0.5), (-0.32, 0.66)], 0.14), paint.main)
    figure.solid(ribbon([(0.02, 0.22), (0.28, 0.26), (0.31, 0.4), (0.31, 0.54)], 0.14), paint.main)
    figure.solid(box(-0.14, 0, 0.14, 0.98, 0.14), paint.main)
    figure.solid(box(-0.14, 0, 0.14, 0.2), paint.main)
    figure.mark(box(0.06, 0.02, 0.12, 0.86, 0.03), paint.dark)
    for x in (-0.06, 0.0):
        figure.mark(box(x - 0.012, 0.06, x + 0.012, 0.88, 0.01), paint.light)
    for x, y in ((-0.36, 0.52), (-0.3, 0.6), (0.29, 0.44), (0.34, 0.36)):
        figure.mark(box(x - 0.01, y - 0.03, x + 0.01, y + 0.03), paint.light)
    bloom = (240, 110, 150) if not paint.main[0] > 190 else (255, 240, 190)
    for turn in range(5):
        figure.disc(0.055 * math.cos(turn * 1.257), 1.0 + 0.045 * math.sin(turn * 1.257), 0.045, bloom)
    figure.disc(0, 1.0, 0.03, (252, 210, 90))


def pumpkin(figure: Figure, paint: Paint) -> None:
    """Ribbed and round, with a curled stalk."""
    figure.solid(ribbon([(0, 0.6), (0.02, 0.74), (0.12, 0.82)], 0.09, 0.07), STEM)
    figure.round(blob((0.03, 0.66), (0.14, 0.76), (0.32, 0.76), (0.24, 0.64)), STEM)
    figure.part()
    figure.round(ellipse(-0.28, 0.33, 0.24, 0.31), paint.dark)
    figure.round(ellipse(0.28, 0.33, 0.24, 0.31), paint.dark)
    figure.round(ellipse(-0.15, 0.34, 0.22, 0.335), paint.main)
    figure.round(ellipse(0.16, 0.34, 0.22, 0.335), paint.main)
    figure.round(ellipse(0, 0.345, 0.17, 0.345), paint.main)
    figure.mark(ellipse(-0.22, 0.48, 0.05, 0.09, 0.35), paint.light)
    for side in (-1, 1):
        figure.mark(arch(0.29 * side, 0.002, 0.06, 0.01), paint.dark)
