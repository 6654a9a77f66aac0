"""The buildings, their walls in the colour asked for. They stand on y = 0."""

import math

from training.dreamlet.drawing.colours import WHITE, Colour, Paint, darker, luminance, mix
from training.dreamlet.drawing.figure import Figure
from training.dreamlet.drawing.geometry import Points, arch, box, ellipse, polygon

GLASS: Colour = (255, 232, 150)
WOOD: Colour = (128, 84, 56)
SLATE: Colour = (86, 84, 110)
TERRACOTTA: Colour = (186, 88, 66)


def _roof(paint: Paint) -> Colour:
    """Slate, so that the walls alone have the colour asked for; tiles on walls that have none."""
    return TERRACOTTA if max(paint.main) - min(paint.main) < 30 else SLATE


def _window(figure: Figure, x: float, y: float, width: float, height: float) -> None:
    figure.mark(box(x - width / 2 - 0.02, y - 0.02, x + width / 2 + 0.02, y + height + 0.02), WHITE)
    figure.mark(box(x - width / 2, y, x + width / 2, y + height), GLASS)
    figure.mark(box(x - 0.01, y, x + 0.01, y + height), WHITE)
    figure.mark(box(x - width / 2, y + height / 2 - 0.01, x + width / 2, y + height / 2 + 0.01), WHITE)


def _door(x: float, width: float, height: float) -> Points:
    return arch(x, height * 0.6, width / 2, height * 0.4)


def _gate(figure: Figure, x: float, width: float, height: float, colour: Colour) -> None:
    figure.mark(box(x - width / 2, 0, x + width / 2, height * 0.62), colour)
    figure.mark(_door(x, width, height), colour)


def house(figure: Figure, paint: Paint) -> None:
    """One storey, a gable roof, a chimney."""
    roof = _roof(paint)
    figure.solid(box(0.2, 0.6, 0.32, 1.0), darker(roof, 0.8))
    figure.part()
    figure.solid(box(-0.4, 0, 0.4, 0.56), paint.main)
    figure.mark(box(0.26, 0, 0.4, 0.56), paint.dark)
    figure.part()
    figure.solid(polygon((-0.52, 0.54), (0, 1.0), (0.52, 0.54)), roof)
    figure.mark(polygon((0, 1.0), (0.52, 0.54), (0.36, 0.54), (-0.04, 0.96)), darker(roof))
    figure.disc(0, 0.7, 0.075, WHITE)
    figure.disc(0, 0.7, 0.055, GLASS)
    _gate(figure, -0.02, 0.18, 0.36, WOOD)
    figure.disc(0.035, 0.17, 0.016, GLASS)
    _window(figure, -0.26, 0.2, 0.16, 0.17)
    _window(figure, 0.2, 0.2, 0.14, 0.17)


def castle(figure: Figure, paint: Paint) -> None:
    """Two towers with pointed roofs, a wall with battlements, a gate."""
    roof = _roof(paint)
    for x in (-0.24, -0.08, 0.08, 0.24):
        figure.solid(box(x - 0.05, 0.5, x + 0.05, 0.62), paint.main)
    figure.solid(box(-0.34, 0, 0.34, 0.54), paint.main)
    figure.mark(box(-0.2, 0.46, 0.2, 0.49), paint.dark)
    _gate(figure, 0, 0.22, 0.36, WOOD)
    for x in (-0.06, 0, 0.06):
        figure.mark(box(x - 0.008, 0, x + 0.008, 0.3), darker(WOOD, 0.6))
    figure.part()
    for x in (-0.4, 0.4):
        figure.solid(box(x - 0.13, 0, x + 0.13, 0.72), paint.main)
        figure.mark(box(x + 0.04, 0, x + 0.13, 0.72), paint.dark)
        figure.mark(arch(x - 0.03, 0.48, 0.04, 0.09), GLASS)
        figure.mark(box(x - 0.07, 0.4, x + 0.01, 0.49), GLASS)
    figure.part()
    for x in (-0.4, 0.4):
        figure.solid(polygon((x - 0.18, 0.7), (x, 1.02), (x + 0.18, 0.7)), roof)
        figure.mark(polygon((x, 1.02), (x + 0.18, 0.7), (x + 0.06, 0.7)), darker(roof))
    figure.part()
    figure.line([(0, 0.6), (0, 0.86)], WOOD, 0.022)
    figure.mark(polygon((0.005, 0.86), (0.18, 0.79), (0.005, 0.72)), roof)


def lighthouse(figure: Figure, paint: Paint) -> None:
    """A tower with two white bands and a lantern room."""
    figure.solid(polygon((-0.2, 0), (-0.12, 0.7), (0.12, 0.7), (0.2, 0)), paint.main)
    stripe = WHITE if luminance(paint.main) < 200 else TERRACOTTA
    for low, high in ((0.16, 0.3), (0.46, 0.58)):
        left, right = 0.2 - 0.08 * low / 0.7, 0.2 - 0.08 * high / 0.7
        figure.mark(polygon((-left, low), (-right, high), (right, high), (left, low)), stripe)
    figure.mark(
        polygon((0.07, 0), (0.04, 0.7), (0.12, 0.7), (0.2, 0)),
        darker(paint.main, 0.66) if stripe != WHITE else paint.dark,
    )
    _gate(figure, -0.03, 0.1, 0.15, WOOD)
    figure.part()
    figure.solid(box(-0.17, 0.69, 0.17, 0.735), SLATE)
    figure.solid(box(-0.1, 0.73, 0.1, 0.88), (255, 236, 140))
    for x in (-0.1, 0, 0.1):
        figure.mark(box(x - 0.012, 0.73, x + 0.012, 0.88), SLATE)
    figure.part()
    figure.round(arch(0, 0.87, 0.14, 0.14), paint.main)
    figure.disc(0, 1.02, 0.025, SLATE)


def windmill(figure: Figure, paint: Paint) -> None:
    """A tapering tower with four sails."""
    figure.solid(polygon((-0.24, 0), (-0.15, 0.6), (0.15, 0.6), (0.24, 0)), paint.main)
    figure.mark(polygon((0.1, 0), (0.06, 0.6), (0.15, 0.6), (0.24, 0)), paint.dark)
    _gate(figure, -0.03, 0.13, 0.22, WOOD)
    _window(figure, -0.03, 0.33, 0.09, 0.1)
    figure.part()
    figure.round(arch(0, 0.59, 0.19, 0.2), _roof(paint))
    figure.part()
    for quarter in range(4):
        turn = math.pi / 4 + quarter * math.pi / 2
        cos, sin = math.cos(turn), math.sin(turn)
        arm = [(0, -0.014), (0.5, -0.014), (0.5, 0.014), (0, 0.014)]
        sail = [(0.12, 0.0), (0.48, 0.0), (0.48, 0.13), (0.12, 0.13)]
        figure.solid(polygon(*((cos * x - sin * y, 0.66 + sin * x + cos * y) for x, y in sail)), WHITE)
        figure.solid(polygon(*((cos * x - sin * y, 0.66 + sin * x + cos * y) for x, y in arm)), WOOD)
    figure.disc(0, 0.66, 0.045, darker(WOOD))


def tent(figure: Figure, paint: Paint) -> None:
    """A ridge tent with an open flap."""
    figure.solid(polygon((-0.36, 0), (0.02, 0.72), (0.6, 0.56), (0.64, 0.02)), paint.dark)
    figure.part()
    figure.solid(polygon((-0.52, 0), (-0.06, 0.74), (0.36, 0)), paint.main)
    figure.mark(polygon((-0.26, 0), (-0.06, 0.52), (0.12, 0)), mix(paint.dark, (30, 24, 50), 0.62))
    figure.mark(polygon((-0.06, 0.52), (0.12, 0), (0.22, 0)), paint.light)
    figure.line([(-0.06, 0.72), (-0.06, 0.84)], WOOD, 0.026)
    figure.line([(0.62, 0.5), (0.76, 0.02)], WHITE, 0.014)
    figure.line([(-0.5, 0.03), (-0.62, 0.0)], WHITE, 0.014)
    figure.mark(ellipse(-0.06, 0.85, 0.03, 0.03), paint.light)
