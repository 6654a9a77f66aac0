"""Vehicles, toys and tools in the colour asked for. They rest on y = 0."""

import math

from training.dreamlet.drawing.colours import INK, WHITE, Colour, Paint, darker, luminance, mix
from training.dreamlet.drawing.figure import Figure
from training.dreamlet.drawing.geometry import arch, blob, box, ellipse, polygon, ribbon, star

GLASS: Colour = (186, 226, 244)
METAL: Colour = (188, 196, 206)
WOOD: Colour = (132, 88, 58)
FLAME: Colour = (252, 164, 54)


def _wheel(figure: Figure, x: float, radius: float) -> None:
    figure.solid(ellipse(x, radius, radius, radius), (48, 46, 58))
    figure.disc(x, radius, radius * 0.55, METAL)
    figure.disc(x, radius, radius * 0.2, (90, 92, 108))


def boat(figure: Figure, paint: Paint) -> None:
    """A sailing boat, its hull in the colour asked for."""
    figure.solid(box(-0.035, 0.2, 0.015, 1.02), WOOD)
    figure.part()
    figure.solid(
        blob((0.04, 0.96), (0.1, 0.86), (0.32, 0.5), (0.42, 0.32), (0.2, 0.3), (0.04, 0.3), (0.03, 0.6)), WHITE
    )
    figure.mark(polygon((0.06, 0.34), (0.4, 0.34), (0.3, 0.5), (0.06, 0.5)), paint.light)
    figure.solid(
        blob((-0.06, 0.88), (-0.12, 0.74), (-0.32, 0.42), (-0.36, 0.33), (-0.2, 0.31), (-0.06, 0.32), (-0.05, 0.6)),
        darker(WHITE, 0.92),
    )
    figure.part()
    figure.solid(polygon((-0.52, 0.28), (0.56, 0.28), (0.36, 0), (-0.36, 0)), paint.main)
    figure.mark(polygon((-0.44, 0.12), (0.45, 0.12), (0.36, 0), (-0.36, 0)), paint.dark)
    figure.mark(
        polygon((-0.52, 0.28), (0.56, 0.28), (0.525, 0.23), (-0.49, 0.23)),
        WHITE if luminance(paint.main) < 200 else WOOD,
    )
    figure.part()
    figure.mark(polygon((-0.01, 1.02), (0.17, 0.98), (-0.01, 0.92)), paint.main)


def car(figure: Figure, paint: Paint) -> None:
    """A small round car seen from the side."""
    figure.round(blob((-0.4, 0.34), (-0.28, 0.62), (-0.12, 0.7), (0.12, 0.69), (0.26, 0.58), (0.36, 0.34)), paint.main)
    figure.round(
        blob(
            (-0.6, 0.3),
            (-0.56, 0.42),
            (-0.3, 0.46),
            (0.26, 0.45),
            (0.52, 0.4),
            (0.62, 0.26),
            (0.58, 0.14),
            (-0.56, 0.14),
        ),
        paint.main,
    )
    figure.mark(blob((-0.29, 0.46), (-0.22, 0.58), (-0.08, 0.63), (-0.04, 0.62), (-0.04, 0.46)), GLASS)
    figure.mark(blob((0.03, 0.46), (0.03, 0.62), (0.12, 0.62), (0.2, 0.56), (0.26, 0.46)), GLASS)
    figure.mark(box(-0.57, 0.14, 0.6, 0.2), paint.dark)
    figure.mark(box(0.02, 0.36, 0.12, 0.385), paint.dark)
    figure.mark(ellipse(0.57, 0.32, 0.04, 0.05), (255, 238, 160))
    figure.mark(ellipse(-0.58, 0.33, 0.028, 0.045), (226, 70, 60))
    figure.part()
    _wheel(figure, -0.33, 0.15)
    _wheel(figure, 0.34, 0.15)


def train(figure: Figure, paint: Paint) -> None:
    """A steam engine with a cab, a boiler and a funnel."""
    figure.solid(polygon((0.26, 0.56), (0.24, 0.86), (0.42, 0.86), (0.4, 0.56)), INK)
    figure.part()
    figure.round(box(-0.2, 0.24, 0.56, 0.6, 0.12), paint.main)
    for x in (0.06, 0.22, 0.44):
        figure.mark(box(x - 0.02, 0.245, x + 0.02, 0.595), paint.dark)
    figure.solid(box(-0.02, 0.6, 0.1, 0.7, 0.03), (250, 204, 90))
    figure.part()
    figure.solid(box(-0.56, 0.2, -0.14, 0.82), paint.main)
    figure.mark(box(-0.47, 0.5, -0.24, 0.74, 0.03), GLASS)
    figure.mark(box(-0.56, 0.2, -0.14, 0.3), paint.dark)
    figure.part()
    figure.solid(box(-0.62, 0.8, -0.08, 0.9, 0.03), paint.dark)
    figure.part()
    figure.solid(polygon((0.5, 0.22), (0.74, 0.04), (0.5, 0.04)), METAL)
    figure.solid(box(-0.56, 0.16, 0.56, 0.24), (60, 58, 70))
    figure.disc(0.57, 0.44, 0.05, (255, 238, 160))
    figure.part()
    _wheel(figure, -0.36, 0.17)
    _wheel(figure, 0.06, 0.13)
    _wheel(figure, 0.38, 0.13)


def rocket(figure: Figure, paint: Paint) -> None:
    """Upright on its flame."""
    figure.mark(blob((-0.11, 0.17), (0.11, 0.17), (0.08, 0.06), (0, -0.08), (-0.08, 0.06)), FLAME)
    figure.mark(blob((-0.06, 0.17), (0.06, 0.17), (0.04, 0.1), (0, 0.02), (-0.04, 0.1)), (255, 232, 140))
    figure.part()
    for side in (-1, 1):
        figure.solid(
            blob(
                (0.14 * side, 0.46), (0.32 * side, 0.28), (0.34 * side, 0.08), (0.22 * side, 0.16), (0.12 * side, 0.22)
            ),
            paint.dark,
        )
    figure.part()
    figure.round(
        blob(
            (0, 1.08),
            (0.12, 0.92),
            (0.2, 0.66),
            (0.18, 0.36),
            (0.12, 0.18),
            (-0.12, 0.18),
            (-0.18, 0.36),
            (-0.2, 0.66),
            (-0.12, 0.92),
        ),
        paint.main,
    )
    tip = WHITE if luminance(paint.main) < 200 else (226, 84, 72)
    figure.mark(blob((0, 1.08), (0.075, 0.99), (0.125, 0.9), (0, 0.87), (-0.125, 0.9), (-0.075, 0.99)), tip)
    figure.mark(box(-0.15, 0.22, 0.15, 0.27), tip)
    figure.disc(0, 0.64, 0.12, METAL)
    figure.disc(0, 0.64, 0.09, (96, 176, 222))
    figure.mark(ellipse(-0.03, 0.67, 0.035, 0.028, 0.6), WHITE)
    figure.mark(box(-0.025, 0.2, 0.025, 0.44, 0.02), paint.dark)


def balloon(figure: Figure, paint: Paint) -> None:
    """A hot-air balloon with light gores and a basket."""
    figure.line([(-0.14, 0.4), (-0.075, 0.18)], WOOD, 0.016)
    figure.line([(0.14, 0.4), (0.075, 0.18)], WOOD, 0.016)
    figure.part()
    figure.solid(box(-0.09, 0.02, 0.09, 0.18, 0.03), WOOD)
    figure.mark(box(-0.09, 0.14, 0.09, 0.18), darker(WOOD, 1.3))
    figure.part()
    figure.round(
        blob(
            (0, 1.1),
            (0.26, 1.02),
            (0.39, 0.78),
            (0.3, 0.52),
            (0.13, 0.34),
            (-0.13, 0.34),
            (-0.3, 0.52),
            (-0.39, 0.78),
            (-0.26, 1.02),
        ),
        paint.main,
    )
    figure.mark(
        blob(
            (0, 1.095),
            (0.1, 0.98),
            (0.14, 0.76),
            (0.1, 0.5),
            (0.05, 0.345),
            (-0.05, 0.345),
            (-0.1, 0.5),
            (-0.14, 0.76),
            (-0.1, 0.98),
        ),
        paint.light,
    )
    figure.mark(
        blob((0.22, 1.03), (0.35, 0.86), (0.36, 0.7), (0.26, 0.5), (0.14, 0.36), (0.22, 0.56), (0.28, 0.78)), paint.dark
    )
    figure.mark(ellipse(-0.22, 0.9, 0.04, 0.08, -0.4), lighter_spot(paint))


def lighter_spot(paint: Paint) -> Colour:
    """The gleam on something smooth."""
    return mix(paint.main, WHITE, 0.68)


def ball(figure: Figure, paint: Paint) -> None:
    """A toy ball with a band and a gleam."""
    figure.round(ellipse(0, 0.4, 0.4, 0.4), paint.main)
    figure.mark(
        blob(
            (-0.392, 0.45),
            (-0.2, 0.35),
            (0, 0.32),
            (0.2, 0.35),
            (0.392, 0.45),
            (0.395, 0.35),
            (0.2, 0.24),
            (0, 0.21),
            (-0.2, 0.24),
            (-0.395, 0.35),
        ),
        WHITE if luminance(paint.main) < 200 else METAL,
    )
    figure.mark(ellipse(-0.15, 0.6, 0.1, 0.065, 0.6), lighter_spot(paint))


def five_pointed_star(figure: Figure, paint: Paint) -> None:
    """A plump star with a friendly face."""
    figure.solid(star(0, 0.48, 0.52, 0.25), paint.main)
    figure.mark(polygon((0, 1.0), (0.147, 0.68), (0, 0.48)), paint.light)
    figure.mark(polygon((0.306, 0.06), (0, 0.23), (0, 0.48)), paint.dark)
    figure.mark(polygon((0.495, 0.64), (0.238, 0.40), (0, 0.48)), paint.dark)
    figure.mark(polygon((-0.495, 0.64), (-0.147, 0.68), (0, 0.48)), paint.light)
    for side in (-1, 1):
        figure.eye(0.085 * side, 0.52, 0.05)
    figure.line([(-0.07, 0.41), (0, 0.375), (0.07, 0.41)], INK, 0.022)


def cup(figure: Figure, paint: Paint) -> None:
    """A cup on a saucer, steaming."""
    for x in (-0.1, 0.1):
        figure.line([(x, 0.7), (x + 0.05, 0.78), (x - 0.03, 0.87), (x + 0.03, 0.97)], (226, 232, 240), 0.035)
    figure.part()
    figure.solid(ellipse(0, 0.07, 0.5, 0.07), darker(WHITE, 0.94))
    figure.part()
    figure.solid(ribbon([(0.26, 0.5), (0.46, 0.5), (0.48, 0.32), (0.24, 0.24)], 0.075), paint.main)
    figure.part()
    figure.round(
        blob((-0.35, 0.6), (-0.33, 0.34), (-0.2, 0.09), (0.2, 0.09), (0.33, 0.34), (0.35, 0.6), (0, 0.62)), paint.main
    )
    figure.solid(ellipse(0, 0.6, 0.35, 0.075), paint.light)
    figure.mark(ellipse(0, 0.595, 0.295, 0.05), (98, 62, 44))
    figure.mark(
        blob((0, 0.28), (-0.09, 0.38), (-0.07, 0.44), (0, 0.41), (0.07, 0.44), (0.09, 0.38)), lighter_spot(paint)
    )


def robot(figure: Figure, paint: Paint) -> None:
    """A boxy robot with lamp eyes."""
    for side in (-1, 1):
        figure.solid(box(0.13 * side - 0.07, 0, 0.13 * side + 0.07, 0.18, 0.03), METAL)
        figure.solid(ribbon([(0.28 * side, 0.46), (0.42 * side, 0.38), (0.43 * side, 0.22)], 0.085), METAL)
        figure.disc(0.43 * side, 0.2, 0.065, paint.dark)
    figure.line([(0, 0.9), (0, 1.02)], METAL, 0.03)
    figure.disc(0, 1.04, 0.045, (236, 82, 74))
    figure.part()
    figure.round(box(-0.28, 0.14, 0.28, 0.53, 0.06), paint.main)
    figure.mark(box(-0.17, 0.24, 0.17, 0.43, 0.03), paint.light)
    for index, lamp in enumerate(((236, 82, 74), (250, 204, 80), (96, 190, 120))):
        figure.disc(-0.1 + 0.1 * index, 0.335, 0.036, lamp)
    figure.part()
    for side in (-1, 1):
        figure.solid(box(0.33 * side - 0.04, 0.66, 0.33 * side + 0.04, 0.8, 0.02), METAL)
    figure.round(box(-0.32, 0.56, 0.32, 0.92, 0.08), paint.main)
    figure.mark(box(-0.24, 0.62, 0.24, 0.86, 0.06), (44, 52, 74))
    for side in (-1, 1):
        figure.disc(0.11 * side, 0.77, 0.062, (120, 232, 240))
        figure.disc(0.11 * side - 0.018, 0.79, 0.022, WHITE)
    figure.line([(-0.1, 0.675), (0, 0.655), (0.1, 0.675)], (120, 232, 240), 0.024)


def snowman(figure: Figure, paint: Paint) -> None:
    """White as snow, with a scarf and a hat in the colour asked for."""
    snow = (240, 244, 250)
    for side in (-1, 1):
        figure.line([(0.2 * side, 0.46), (0.36 * side, 0.56), (0.48 * side, 0.66)], WOOD, 0.03)
    figure.part()
    figure.round(ellipse(0, 0.22, 0.29, 0.235), snow)
    figure.part()
    figure.round(ellipse(0, 0.5, 0.215, 0.18), snow)
    for y in (0.42, 0.5):
        figure.disc(0, y, 0.024, INK)
    figure.part()
    figure.round(ellipse(0, 0.74, 0.17, 0.155), snow)
    for side in (-1, 1):
        figure.disc(0.06 * side, 0.77, 0.024, INK)
    figure.mark(polygon((0, 0.75), (0.2, 0.71), (0, 0.69)), (244, 140, 48))
    figure.part()
    figure.solid(ribbon([(0.08, 0.6), (0.13, 0.5), (0.12, 0.36)], 0.1, 0.12), paint.dark)
    figure.solid(ribbon([(-0.17, 0.615), (0, 0.585), (0.17, 0.615)], 0.1), paint.main)
    figure.part()
    figure.solid(box(-0.24, 0.84, 0.24, 0.9, 0.03), paint.main)
    figure.solid(box(-0.155, 0.88, 0.155, 1.1, 0.02), paint.main)
    figure.mark(box(-0.155, 0.9, 0.155, 0.95), paint.dark)


def umbrella(figure: Figure, paint: Paint) -> None:
    """Open, its handle curved."""
    figure.mark(ribbon([(0, 0.95), (0, 0.5), (0, 0.14), (-0.04, 0.04), (-0.12, 0.05), (-0.14, 0.14)], 0.04), WOOD)
    figure.part()
    edge = [(-0.52, 0.52), (-0.35, 0.57), (-0.18, 0.52), (0, 0.57), (0.18, 0.52), (0.35, 0.57), (0.52, 0.52)]
    dome = [(0.52 * math.cos(k * math.pi / 16), 0.52 + 0.46 * math.sin(k * math.pi / 16)) for k in range(1, 16)]
    figure.solid(polygon(*edge, *dome), paint.main)
    figure.mark(polygon((0.18, 0.52), (0.35, 0.57), (0.52, 0.52), *dome[:7], (0.04, 0.98), (0.14, 0.8)), paint.dark)
    figure.mark(polygon((-0.18, 0.52), (0, 0.57), (0.18, 0.52), (0.14, 0.78), (0, 0.98), (-0.14, 0.78)), paint.light)
    figure.line([(0, 0.97), (0, 1.05)], WOOD, 0.03)


def gift(figure: Figure, paint: Paint) -> None:
    """A wrapped box with a bow."""
    tape = (250, 208, 84) if not (paint.main[0] > 200 and paint.main[1] > 120) else (214, 66, 74)
    for side in (-1, 1):
        figure.solid(blob((0, 0.72), (0.12 * side, 0.9), (0.3 * side, 0.92), (0.28 * side, 0.76)), tape)
        figure.mark(
            blob((0.06 * side, 0.75), (0.13 * side, 0.84), (0.22 * side, 0.85), (0.2 * side, 0.78)), darker(tape)
        )
    figure.part()
    figure.solid(box(-0.38, 0, 0.38, 0.56), paint.main)
    figure.mark(box(0.2, 0, 0.38, 0.56), paint.dark)
    figure.mark(box(-0.075, 0, 0.075, 0.56), tape)
    figure.part()
    figure.solid(box(-0.44, 0.54, 0.44, 0.72, 0.02), paint.main)
    figure.mark(box(-0.44, 0.54, 0.44, 0.58), paint.dark)
    figure.mark(box(-0.075, 0.54, 0.075, 0.72), tape)
    figure.mark(arch(0, 0.7, 0.07, 0.07), darker(tape, 0.85))
