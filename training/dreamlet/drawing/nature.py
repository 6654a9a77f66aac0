"""The places under the open sky where nobody lives, and a yard. Each leaves room in the middle for a subject."""

import math

from training.dreamlet.drawing.colours import Colour, darker
from training.dreamlet.drawing.geometry import Points, box, ellipse, polygon, ribbon
from training.dreamlet.drawing.light import SNOW_COVER
from training.dreamlet.drawing.sky import paint_sky
from training.dreamlet.drawing.stage import Stage

GRASS: Colour = (122, 184, 88)
SAND: Colour = (240, 212, 150)
PINE: Colour = (58, 116, 88)
BARK: Colour = (112, 78, 60)


def mountains(stage: Stage) -> None:
    """Snow-capped peaks over meadows, a few pines."""
    horizon = 0.36 * stage.height
    paint_sky(stage, horizon)
    random = stage.random
    for k in range(3):
        x = stage.width * (k + random.uniform(0.1, 0.9)) / 3
        _mountain(
            stage,
            x,
            horizon - 0.02,
            horizon + random.uniform(0.26, 0.4),
            random.uniform(0.3, 0.42),
            (142, 152, 186),
            0.9,
        )
    for x in (random.uniform(0, 0.35) * stage.width, random.uniform(0.65, 1) * stage.width):
        _mountain(
            stage,
            x,
            horizon - 0.04,
            horizon + random.uniform(0.16, 0.3),
            random.uniform(0.26, 0.36),
            (112, 120, 154),
            0.35,
        )
    stage.ground(_hills(stage, horizon - 0.02, 0.022, 1.1), (96, 156, 92), 0.3)
    for x in (random.uniform(0.02, 0.16), random.uniform(0.84, 0.98)):
        _pine(stage, x * stage.width, horizon - 0.06, random.uniform(0.16, 0.24), 0.15)
    stage.ground(_hills(stage, horizon - 0.13, 0.02, 0.8), GRASS)


def yard(stage: Stage) -> None:
    """A lawn before a white picket fence."""
    horizon = 0.4 * stage.height
    paint_sky(stage, horizon)
    random = stage.random
    stage.ground(_hills(stage, horizon + 0.02, 0.012, 1.5), (96, 160, 90), 0.35)
    for side in (random.uniform(0, 0.2), random.uniform(0.8, 1)):
        for across, up, radius in ((-0.08, 0.06, 0.1), (0.06, 0.08, 0.11), (0, 0.15, 0.1)):
            stage.put(ellipse(side * stage.width + across, horizon + up, radius, radius), (84, 150, 90), 0.25)
    stage.ground(box(0, -0.01, stage.width, horizon - 0.01), GRASS)
    fence: Colour = (250, 246, 236)
    for y in (horizon + 0.015, horizon + 0.085):
        stage.put(box(0, y, stage.width, y + 0.022), darker(fence, 0.88))
    step = 0.094
    offset = random.uniform(0, step)
    for k in range(math.ceil(stage.width / step) + 1):
        x = k * step - offset
        foot, top = horizon - 0.035, horizon + 0.13
        stage.put(polygon((x, foot), (x, top), (x + 0.028, top + 0.04), (x + 0.056, top), (x + 0.056, foot)), fence)
    for _ in range(5):
        _tuft(stage, random.uniform(0, stage.width), random.uniform(0.05, horizon - 0.1), 0.022, darker(GRASS, 0.86))


def yard_front(stage: Stage, base: float) -> None:
    """Tufts of grass and daisies before the feet."""
    for _ in range(4):
        x = stage.random.uniform(0, stage.width)
        y = stage.random.uniform(0.0, max(base - 0.07, 0.02))
        _tuft(stage, x, y, 0.032, darker(GRASS, 0.8))
        if stage.time != "snow" and stage.random.random() < 0.6:
            stage.canvas.dots([(x + 0.03, y + 0.035)], 0.012, stage.light.on_scenery((255, 250, 240)))


def sea(stage: Stage) -> None:
    """Open water to the horizon."""
    horizon = 0.46 * stage.height
    paint_sky(stage, horizon)
    random = stage.random
    stage.put(box(0, -0.01, stage.width, horizon), (46, 124, 186), 0.6)
    for k, colour in enumerate(((42, 128, 196), (38, 116, 188), (34, 104, 176))):
        stage.put(_swell(stage, horizon - 0.06 - 0.1 * k, 0.008 + 0.003 * k, 5 - k), colour, 0.2)
    for _ in range(9):
        x, y = random.uniform(0, stage.width), random.uniform(0.03, horizon - 0.03)
        length = 0.05 + 0.1 * (1 - y / horizon)
        stage.put(
            ribbon(
                [(x - length, y), (x - length / 3, y + 0.01), (x + length / 3, y - 0.004), (x + length, y + 0.006)],
                0.009,
            ),
            (150, 210, 236),
        )


def sea_front(stage: Stage, base: float) -> None:
    """The waves that a subject stands in."""
    stage.put(_swell(stage, base + 0.03, 0.012, 4), (32, 100, 172))
    stage.put(_swell(stage, base - 0.06, 0.012, 5), (28, 90, 160))
    for _ in range(4):
        x, y = stage.random.uniform(0, stage.width), stage.random.uniform(0.02, max(base - 0.02, 0.04))
        stage.put(ribbon([(x - 0.08, y), (x, y + 0.008), (x + 0.08, y)], 0.009), (140, 204, 234))


def beach(stage: Stage) -> None:
    """Sand before the surf, a palm to one side."""
    horizon = 0.46 * stage.height
    paint_sky(stage, horizon)
    random = stage.random
    stage.put(box(0, -0.01, stage.width, horizon), (52, 142, 198), 0.45)
    for _ in range(4):
        x, y = random.uniform(0, stage.width), random.uniform(horizon - 0.1, horizon - 0.02)
        stage.put(ribbon([(x - 0.06, y), (x, y + 0.006), (x + 0.06, y)], 0.008), (170, 222, 240))
    shore = 0.31 * stage.height
    stage.put(_hills(stage, shore + 0.028, 0.014, 1.2), (248, 252, 252))
    stage.ground(_hills(stage, shore, 0.014, 1.2), SAND)
    side = random.choice((0.08, 0.92))
    x, foot, lean = side * stage.width, shore - 0.05, 0.08 if side < 0.5 else -0.08
    top = (x + lean, foot + 0.5)
    stage.put(ribbon([(x, foot), (x + lean * 0.3, foot + 0.25), top], 0.045, 0.026), (158, 116, 78))
    for turn in (0.1, 0.8, 1.6, 2.4, 3.05, -0.35, 3.5):
        tip = (top[0] + 0.19 * math.cos(turn), top[1] + 0.11 * math.sin(turn) - 0.04)
        bend = (top[0] + 0.11 * math.cos(turn), top[1] + 0.1 * math.sin(turn) + 0.035)
        stage.put(ribbon([top, bend, tip], 0.036, 0.008), (72, 150, 92) if turn < 2 else (58, 132, 84))
    for _ in range(5):
        dot = (random.uniform(0, stage.width), random.uniform(0.02, shore - 0.08))
        stage.put(ellipse(*dot, 0.012, 0.006), darker(SAND, 0.86))


def desert(stage: Stage) -> None:
    """Dunes and table mountains."""
    horizon = 0.38 * stage.height
    paint_sky(stage, horizon)
    random = stage.random
    for _ in range(2):
        x, half, high = random.uniform(0, stage.width), random.uniform(0.1, 0.18), random.uniform(0.1, 0.19)
        mesa = polygon(
            (x - half * 1.25, horizon - 0.05),
            (x - half, horizon + high),
            (x + half, horizon + high),
            (x + half * 1.25, horizon - 0.05),
        )
        stage.put(mesa, (206, 122, 82), 0.5)
        stage.put(box(x - half, horizon + high - 0.03, x + half, horizon + high), (226, 150, 104), 0.5)
    for level, colour, waves in (
        (0.0, (244, 204, 132), 1.3),
        (-0.09, (238, 188, 112), 0.9),
        (-0.2, (228, 172, 96), 1.1),
    ):
        stage.ground(_hills(stage, horizon + level, 0.026, waves), colour)
    for x in (random.uniform(0.03, 0.14), random.uniform(0.86, 0.97)):
        if random.random() < 0.6:
            _small_cactus(stage, x * stage.width, horizon - random.uniform(0.05, 0.12), random.uniform(0.13, 0.19))


def forest(stage: Stage) -> None:
    """Rows of pines, dark trunks near the edges, ferns on the floor."""
    horizon = 0.36 * stage.height
    paint_sky(stage, horizon)
    random = stage.random
    for row, (distance, size, colour) in enumerate(
        ((0.9, 0.5, (86, 146, 112)), (0.5, 0.56, (64, 124, 94)), (0.1, 0.6, PINE))
    ):
        count = math.ceil(stage.width * (6 - row))
        for k in range(count):
            x = stage.width * (k + random.uniform(0.1, 0.9)) / count
            if row == 2 and 0.24 < x / stage.width < 0.76:
                continue
            _pine(stage, x, horizon - 0.03 - 0.03 * row, size * random.uniform(0.8, 1.15), distance, colour)
        # Undergrowth closes the gaps between the trunks of a row.
        stage.put(_hills(stage, horizon + 0.05 - 0.03 * row, 0.012, 2.3), darker(colour, 0.9), distance)
    stage.ground(_hills(stage, horizon - 0.03, 0.014, 1.4), (92, 142, 82), 0.2)
    stage.ground(_hills(stage, horizon - 0.14, 0.016, 0.9), (82, 128, 72))


def forest_front(stage: Stage, base: float) -> None:
    """Ferns before the feet."""
    for x in (stage.random.uniform(0, 0.25), stage.random.uniform(0.75, 1), stage.random.uniform(0.3, 0.7)):
        _tuft(stage, x * stage.width, stage.random.uniform(-0.01, max(base - 0.1, 0.01)), 0.045, (58, 106, 70))


def _hills(stage: Stage, base: float, swell: float, waves: float) -> Points:
    """Rolling ground from edge to edge, its crest around `base`."""
    phase = stage.random.uniform(0, 2 * math.pi)
    steps = 20
    crest = [
        (stage.width * (k / steps), base + swell * math.sin(phase + waves * 2 * math.pi * k / steps))
        for k in range(steps + 1)
    ]
    return polygon((stage.width, -0.01), (0, -0.01), *crest)


def _mountain(stage: Stage, x: float, foot: float, peak: float, reach: float, colour: Colour, distance: float) -> None:
    lean = stage.random.uniform(-0.12, 0.12) * reach
    top = (x + lean, peak)
    stage.put(polygon((x - reach, foot), top, (x + reach, foot)), colour, distance)
    stage.put(polygon(top, (x + reach, foot), (x + lean + 0.12 * reach, foot)), darker(colour, 0.82), distance)
    share = 0.6 if stage.time == "snow" else 0.34
    rise = peak - foot

    def flank(side: float, down: float) -> tuple[float, float]:
        return (top[0] + (x + side * reach - top[0]) * down, peak - rise * down)

    cap = polygon(
        top, flank(1, share), (top[0] + 0.12 * reach, peak - rise * share * 0.72),
        (top[0] - 0.02 * reach, peak - rise * share * 1.12),
        (top[0] - 0.12 * reach, peak - rise * share * 0.7), flank(-1, share),
    )  # fmt: skip
    stage.put(cap, (250, 252, 255), distance * 0.5)
    stage.put(
        polygon(top, flank(1, share), (top[0] + 0.12 * reach, peak - rise * share * 0.72)),
        (214, 224, 240),
        distance * 0.5,
    )


def _pine(stage: Stage, x: float, y: float, size: float, distance: float, colour: Colour = PINE) -> None:
    stage.put(box(x - 0.03 * size, y, x + 0.03 * size, y + 0.2 * size), BARK, distance)
    for low, half, high in ((0.14, 0.28, 0.6), (0.38, 0.22, 0.8), (0.6, 0.16, 1.0)):
        tier = polygon((x - half * size, y + low * size), (x, y + high * size), (x + half * size, y + low * size))
        stage.put(tier, colour, distance)
        if stage.time == "snow":
            top = y + high * size
            drop = (high - low) * size * 0.36
            stage.put(
                polygon((x - half * size * 0.36, top - drop), (x, top), (x + half * size * 0.36, top - drop)),
                SNOW_COVER,
            )


def _tuft(stage: Stage, x: float, y: float, size: float, colour: Colour) -> None:
    blades = polygon(
        (x - 0.5 * size, y),
        (x - 0.6 * size, y + 0.8 * size),
        (x - 0.18 * size, y + 0.3 * size),
        (x, y + 1.1 * size),
        (x + 0.2 * size, y + 0.3 * size),
        (x + 0.62 * size, y + 0.75 * size),
        (x + 0.5 * size, y),
    )
    stage.ground(blades, colour)


def _swell(stage: Stage, level: float, height: float, waves: float) -> Points:
    phase = stage.random.uniform(0, 6.3)
    crest = [
        (stage.width * k / 24, level + height * (abs(math.sin(phase + waves * math.pi * k / 24)) * 2 - 1))
        for k in range(25)
    ]
    return polygon((stage.width, -0.01), (0, -0.01), *crest)


def _small_cactus(stage: Stage, x: float, y: float, size: float) -> None:
    green = (104, 152, 92)
    stage.put(ribbon([(x, y), (x, y + size)], 0.22 * size, smooth=False), green)
    stage.put(
        ribbon(
            [(x, y + 0.4 * size), (x - 0.3 * size, y + 0.45 * size), (x - 0.32 * size, y + 0.75 * size)], 0.15 * size
        ),
        green,
    )
    stage.put(
        ribbon(
            [(x, y + 0.3 * size), (x + 0.3 * size, y + 0.35 * size), (x + 0.32 * size, y + 0.6 * size)], 0.15 * size
        ),
        green,
    )
