"""The animals, each in its own colour. Their feet stand on y = 0 and they look to the right."""

from training.dreamlet.drawing.colours import INK, WHITE, Colour, Paint, mix
from training.dreamlet.drawing.figure import Figure
from training.dreamlet.drawing.geometry import blob, box, ellipse, polygon, ribbon

BEAK: Colour = (244, 166, 52)
NOSE: Colour = (52, 38, 48)
PINK: Colour = (240, 158, 170)


def cat(figure: Figure, paint: Paint) -> None:
    """Sits and looks at us, its tail curled up beside it."""
    figure.solid(ribbon([(0.16, 0.09), (0.38, 0.08), (0.46, 0.26), (0.37, 0.42), (0.43, 0.54)], 0.11, 0.08), paint.main)
    figure.part()
    figure.round(
        blob((0, 0.56), (0.19, 0.42), (0.26, 0.16), (0.2, 0), (-0.2, 0), (-0.26, 0.16), (-0.19, 0.42)), paint.main
    )
    figure.mark(blob((0, 0.42), (0.1, 0.3), (0.08, 0.12), (-0.08, 0.12), (-0.1, 0.3)), paint.light)
    figure.part()
    for side in (-1, 1):
        figure.round(ellipse(0.1 * side, 0.045, 0.09, 0.055), paint.main)
    figure.part()
    for side in (-1, 1):
        figure.solid(polygon((0.27 * side, 0.7), (0.25 * side, 1.04), (0.04 * side, 0.86)), paint.main)
    figure.round(ellipse(0, 0.7, 0.29, 0.23), paint.main)
    for side in (-1, 1):
        figure.mark(polygon((0.225 * side, 0.83), (0.22 * side, 0.965), (0.115 * side, 0.88)), PINK)
        figure.eye(0.115 * side, 0.72, 0.068, (236, 240, 176))
        for rise in (0.6, 0.655):
            figure.line([(0.13 * side, 0.625), (0.36 * side, rise)], paint.line, 0.014)
    figure.mark(polygon((-0.035, 0.645), (0.035, 0.645), (0, 0.605)), PINK)
    figure.line([(-0.07, 0.575), (-0.03, 0.56), (0, 0.605), (0.03, 0.56), (0.07, 0.575)], paint.line, 0.016)


def dog(figure: Figure, paint: Paint) -> None:
    """Stands in profile, ears down, tail up."""
    figure.solid(ribbon([(-0.36, 0.46), (-0.5, 0.56), (-0.52, 0.74)], 0.1, 0.06), paint.main)
    figure.part()
    for x in (-0.24, 0.26):
        figure.solid(box(x - 0.06, 0, x + 0.06, 0.34, 0.05), paint.dark)
    figure.part()
    for x in (-0.34, 0.16):
        figure.solid(box(x - 0.065, 0, x + 0.065, 0.4, 0.055), paint.main)
    figure.round(
        blob(
            (-0.42, 0.42),
            (-0.34, 0.55),
            (0, 0.55),
            (0.3, 0.58),
            (0.33, 0.36),
            (0.14, 0.25),
            (-0.2, 0.26),
            (-0.38, 0.29),
        ),
        paint.main,
    )
    figure.part()
    figure.round(blob((0.12, 0.72), (0.2, 0.93), (0.38, 0.95), (0.48, 0.8), (0.4, 0.6), (0.2, 0.56)), paint.main)
    figure.solid(blob((0.36, 0.77), (0.5, 0.77), (0.6, 0.7), (0.57, 0.6), (0.38, 0.58)), paint.light)
    figure.mark(ellipse(0.575, 0.73, 0.05, 0.042), NOSE)
    figure.line([(0.42, 0.635), (0.5, 0.62), (0.57, 0.65)], NOSE, 0.016)
    figure.eye(0.37, 0.815, 0.06)
    figure.part()
    figure.round(blob((0.2, 0.94), (0.27, 0.86), (0.24, 0.6), (0.14, 0.53), (0.06, 0.64), (0.1, 0.86)), paint.dark)
    figure.part()
    figure.mark(
        ribbon([(0.16, 0.52), (0.28, 0.49), (0.37, 0.54)], 0.05),
        (214, 62, 62) if paint.main[0] < 190 else (60, 110, 200),
    )
    figure.disc(0.29, 0.455, 0.035, (250, 208, 80))


def bird(figure: Figure, paint: Paint) -> None:
    """A round songbird on thin legs."""
    for x in (-0.02, 0.12):
        figure.mark(ribbon([(x, 0.24), (x, 0.02), (x + 0.09, 0.02)], 0.03, smooth=False), BEAK)
    figure.part()
    figure.solid(polygon((-0.3, 0.5), (-0.62, 0.42), (-0.58, 0.3), (-0.2, 0.32)), paint.dark)
    figure.part()
    figure.solid(polygon((0.34, 0.78), (0.56, 0.7), (0.34, 0.62)), BEAK)
    figure.part()
    figure.round(
        blob(
            (0.2, 0.92),
            (0.38, 0.8),
            (0.36, 0.5),
            (0.22, 0.26),
            (-0.02, 0.2),
            (-0.26, 0.32),
            (-0.32, 0.5),
            (-0.1, 0.66),
            (0.02, 0.84),
        ),
        paint.main,
    )
    figure.mark(blob((0.33, 0.58), (0.3, 0.38), (0.16, 0.26), (0.02, 0.27), (0.12, 0.44)), paint.light)
    figure.eye(0.2, 0.75, 0.065)
    figure.part()
    figure.round(blob((0.08, 0.56), (0.06, 0.38), (-0.16, 0.28), (-0.42, 0.36), (-0.16, 0.58)), paint.dark)


def fish(figure: Figure, paint: Paint) -> None:
    """Swims to the right."""
    figure.solid(
        blob((-0.3, 0.42), (-0.58, 0.68), (-0.64, 0.62), (-0.52, 0.42), (-0.64, 0.2), (-0.57, 0.15)), paint.dark
    )
    figure.solid(blob((-0.12, 0.62), (0.06, 0.82), (0.22, 0.78), (0.2, 0.6)), paint.dark)
    figure.solid(blob((-0.08, 0.22), (0, 0.06), (0.12, 0.08), (0.12, 0.24)), paint.dark)
    figure.part()
    figure.round(ellipse(0.06, 0.42, 0.46, 0.28), paint.main)
    figure.mark(blob((-0.2, 0.28), (0.05, 0.2), (0.34, 0.28), (0.2, 0.34), (0, 0.33)), paint.light)
    for x in (0.06, -0.09, -0.24):
        figure.line([(x, 0.56), (x + 0.07, 0.44), (x, 0.32)], paint.dark, 0.03)
    figure.eye(0.31, 0.48, 0.075)
    figure.line([(0.52, 0.37), (0.46, 0.34), (0.41, 0.35)], INK, 0.02)


def rabbit(figure: Figure, paint: Paint) -> None:
    """Sits upright with long ears."""
    figure.disc(-0.3, 0.16, 0.1, WHITE)
    figure.part()
    figure.round(
        blob((0, 0.5), (0.2, 0.38), (0.27, 0.16), (0.2, 0), (-0.2, 0), (-0.27, 0.16), (-0.2, 0.38)), paint.main
    )
    figure.mark(ellipse(0, 0.22, 0.13, 0.16), paint.light)
    figure.part()
    for side in (-1, 1):
        figure.round(ellipse(0.15 * side, 0.045, 0.12, 0.055), paint.main)
    figure.part()
    for side in (-1, 1):
        figure.round(ellipse(0.12 * side, 0.92, 0.075, 0.24, -0.16 * side), paint.main)
    figure.round(ellipse(0, 0.59, 0.23, 0.21), paint.main)
    for side in (-1, 1):
        figure.mark(ellipse(0.122 * side, 0.92, 0.036, 0.17, -0.16 * side), PINK)
        figure.eye(0.095 * side, 0.625, 0.058)
    figure.mark(ellipse(0, 0.545, 0.035, 0.026), PINK)
    figure.line([(-0.06, 0.48), (0, 0.505), (0.06, 0.48)], paint.line, 0.016)
    figure.mark(box(-0.028, 0.43, 0.028, 0.49, 0.01), WHITE)


def fox(figure: Figure, paint: Paint) -> None:
    """Sits in profile; bushy tail with a white tip, pointed face."""
    figure.round(
        blob((-0.1, 0.1), (-0.3, 0.04), (-0.56, 0.18), (-0.64, 0.46), (-0.5, 0.68), (-0.42, 0.46), (-0.3, 0.32)),
        paint.main,
    )
    figure.mark(blob((-0.5, 0.68), (-0.61, 0.55), (-0.62, 0.44), (-0.54, 0.5), (-0.44, 0.5)), WHITE)
    figure.part()
    figure.solid(box(0.1, 0, 0.21, 0.4, 0.05), paint.dark)
    figure.part()
    figure.round(
        blob((0.1, 0.62), (0.24, 0.44), (0.22, 0.18), (0.1, 0), (-0.26, 0), (-0.32, 0.16), (-0.18, 0.42)), paint.main
    )
    figure.mark(blob((0.19, 0.54), (0.235, 0.4), (0.18, 0.2), (0.1, 0.3)), WHITE)
    figure.part()
    for x, tip in ((-0.09, -0.1), (0.22, 0.25)):
        figure.solid(polygon((x - 0.08, 0.8), (tip, 1.06), (x + 0.1, 0.84)), paint.main)
        figure.mark(polygon((x - 0.03, 0.84), (tip, 0.98), (x + 0.05, 0.86)), INK)
    figure.round(
        blob(
            (0.06, 0.9),
            (0.26, 0.84),
            (0.36, 0.72),
            (0.56, 0.62),
            (0.3, 0.56),
            (0.04, 0.55),
            (-0.17, 0.64),
            (-0.13, 0.8),
        ),
        paint.main,
    )
    figure.mark(blob((0.3, 0.67), (0.5, 0.62), (0.3, 0.565), (0.06, 0.56), (-0.1, 0.61), (0.1, 0.65)), WHITE)
    figure.mark(ellipse(0.54, 0.63, 0.042, 0.036), NOSE)
    figure.eye(0.19, 0.75, 0.055)


def owl(figure: Figure, paint: Paint) -> None:
    """Faces us with great round eyes."""
    for x in (-0.11, 0.11):
        figure.mark(ellipse(x, 0.03, 0.09, 0.04), BEAK)
    figure.part()
    for side in (-1, 1):
        figure.solid(polygon((0.3 * side, 0.74), (0.31 * side, 1.0), (0.08 * side, 0.88)), paint.main)
    figure.round(
        blob(
            (0, 0.94),
            (0.24, 0.87),
            (0.33, 0.66),
            (0.32, 0.3),
            (0.2, 0.05),
            (-0.2, 0.05),
            (-0.32, 0.3),
            (-0.33, 0.66),
            (-0.24, 0.87),
        ),
        paint.main,
    )
    figure.mark(blob((0, 0.54), (0.18, 0.42), (0.16, 0.14), (-0.16, 0.14), (-0.18, 0.42)), paint.light)
    for y, count in ((0.42, 2), (0.31, 3), (0.2, 2)):
        for index in range(count):
            x = (index - (count - 1) / 2) * 0.1
            figure.line([(x - 0.035, y + 0.02), (x, y - 0.015), (x + 0.035, y + 0.02)], paint.main, 0.022)
    figure.part()
    for side in (-1, 1):
        figure.round(blob((0.29 * side, 0.58), (0.4 * side, 0.36), (0.3 * side, 0.1), (0.23 * side, 0.34)), paint.dark)
    figure.part()
    for side in (-1, 1):
        figure.disc(0.135 * side, 0.7, 0.14, paint.light)
        figure.disc(0.135 * side, 0.7, 0.105, (255, 222, 110))
        figure.disc(0.125 * side, 0.7, 0.062, INK)
        figure.disc(0.1 * side, 0.735, 0.024, WHITE)
    figure.mark(polygon((-0.05, 0.63), (0.05, 0.63), (0, 0.52)), BEAK)


def bear(figure: Figure, paint: Paint) -> None:
    """A teddy-like bear that sits and faces us."""
    for side in (-1, 1):
        figure.round(ellipse(0.34 * side, 0.36, 0.1, 0.17, 0.5 * side), paint.main)
    figure.part()
    figure.round(ellipse(0, 0.3, 0.3, 0.29), paint.main)
    figure.mark(ellipse(0, 0.28, 0.18, 0.19), paint.light)
    figure.part()
    for side in (-1, 1):
        figure.round(ellipse(0.27 * side, 0.1, 0.13, 0.12), paint.main)
        figure.mark(ellipse(0.27 * side, 0.09, 0.075, 0.065), paint.light)
    figure.part()
    for side in (-1, 1):
        figure.round(ellipse(0.22 * side, 0.92, 0.1, 0.1), paint.main)
        figure.disc(0.22 * side, 0.92, 0.055, paint.dark)
    figure.round(ellipse(0, 0.74, 0.29, 0.25), paint.main)
    figure.mark(ellipse(0, 0.66, 0.14, 0.115), paint.light)
    figure.mark(ellipse(0, 0.71, 0.058, 0.042), NOSE)
    figure.line([(0, 0.68), (0, 0.62), (0, 0.6)], NOSE, 0.018)
    figure.line([(-0.06, 0.61), (0, 0.59), (0.06, 0.61)], NOSE, 0.018)
    for side in (-1, 1):
        figure.eye(0.13 * side, 0.8, 0.05)


def penguin(figure: Figure, paint: Paint) -> None:
    """Upright, its coat in the colour asked for, its belly white."""
    for x in (-0.11, 0.11):
        figure.solid(ellipse(x, 0.035, 0.11, 0.045), BEAK)
    figure.part()
    for side in (-1, 1):
        figure.round(blob((0.24 * side, 0.62), (0.4 * side, 0.4), (0.38 * side, 0.22), (0.26 * side, 0.36)), paint.dark)
    figure.part()
    figure.round(
        blob(
            (0, 1.0),
            (0.2, 0.92),
            (0.26, 0.72),
            (0.32, 0.4),
            (0.24, 0.07),
            (-0.24, 0.07),
            (-0.32, 0.4),
            (-0.26, 0.72),
            (-0.2, 0.92),
        ),
        paint.main,
    )
    figure.mark(blob((0, 0.62), (0.19, 0.5), (0.2, 0.28), (0.14, 0.1), (-0.14, 0.1), (-0.2, 0.28), (-0.19, 0.5)), WHITE)
    for side in (-1, 1):
        figure.mark(ellipse(0.09 * side, 0.79, 0.105, 0.115), WHITE)
        figure.eye(0.09 * side, 0.8, 0.055)
    figure.mark(polygon((-0.065, 0.73), (0.065, 0.73), (0, 0.63)), BEAK)


def turtle(figure: Figure, paint: Paint) -> None:
    """Walks to the right under a domed shell in the colour asked for."""
    skin = (150, 186, 96) if paint.main[1] < 140 or paint.main[0] > 150 else (226, 190, 120)
    figure.round(
        blob((0.32, 0.24), (0.42, 0.44), (0.56, 0.5), (0.68, 0.4), (0.62, 0.28), (0.48, 0.24), (0.4, 0.14)), skin
    )
    figure.solid(polygon((-0.44, 0.16), (-0.62, 0.12), (-0.42, 0.26)), skin)
    for x in (-0.28, 0.26):
        figure.round(blob((x - 0.1, 0.2), (x - 0.1, 0.02), (x + 0.1, 0.02), (x + 0.11, 0.2)), skin)
    figure.eye(0.57, 0.4, 0.05)
    figure.part()
    figure.round(blob((-0.48, 0.18), (-0.4, 0.46), (-0.16, 0.66), (0.1, 0.66), (0.34, 0.46), (0.42, 0.18)), paint.main)
    figure.mark(ribbon([(-0.46, 0.19), (0.41, 0.19)], 0.06, smooth=False), paint.light)
    figure.mark(
        polygon((-0.13, 0.56), (0.06, 0.56), (0.14, 0.4), (0.06, 0.27), (-0.13, 0.27), (-0.21, 0.4)), paint.dark
    )
    figure.mark(polygon((-0.24, 0.53), (-0.29, 0.4), (-0.24, 0.28), (-0.39, 0.28), (-0.34, 0.44)), paint.dark)
    figure.mark(polygon((0.18, 0.54), (0.22, 0.4), (0.17, 0.28), (0.33, 0.28), (0.29, 0.44)), paint.dark)


def butterfly(figure: Figure, paint: Paint) -> None:
    """Wings spread, as in a collector's book."""
    edge = mix(paint.main, INK, 0.72)
    for side in (-1, 1):
        figure.solid(
            blob(
                (0.03 * side, 0.5),
                (0.2 * side, 0.46),
                (0.4 * side, 0.3),
                (0.36 * side, 0.1),
                (0.2 * side, 0.08),
                (0.06 * side, 0.3),
            ),
            paint.dark,
        )
    figure.part()
    for side in (-1, 1):
        figure.solid(
            blob(
                (0.03 * side, 0.52),
                (0.1 * side, 0.74),
                (0.34 * side, 0.96),
                (0.54 * side, 0.9),
                (0.5 * side, 0.6),
                (0.3 * side, 0.44),
            ),
            paint.main,
        )
        figure.mark(blob((0.08 * side, 0.56), (0.14 * side, 0.7), (0.27 * side, 0.8), (0.3 * side, 0.62)), paint.light)
        figure.mark(ellipse(0.42 * side, 0.8, 0.055, 0.06), WHITE)
        figure.disc(0.26 * side, 0.25, 0.06, paint.light)
    figure.part()
    figure.round(ellipse(0, 0.48, 0.05, 0.26), edge)
    figure.disc(0, 0.77, 0.06, edge)
    for side in (-1, 1):
        figure.line([(0.02 * side, 0.8), (0.07 * side, 0.92), (0.16 * side, 0.99)], edge, 0.02)
