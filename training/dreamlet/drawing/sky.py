"""The sky of a scene, and what falls from it."""

from training.dreamlet.drawing.colours import Colour, mix
from training.dreamlet.drawing.geometry import ellipse, polygon, ribbon
from training.dreamlet.drawing.stage import Stage

MOON: Colour = (250, 244, 214)


def paint_sky(stage: Stage, horizon: float) -> None:
    """Gradient, sun or moon, stars, clouds: as the time has it."""
    stage.canvas.gradient(*stage.light.sky, down_to=horizon)
    height, width, random = stage.height, stage.width, stage.random
    above = height - horizon
    if stage.time == "night":
        stars(stage, horizon, 26)
        _moon(stage, random.uniform(0.12, 0.88) * width, height - random.uniform(0.14, 0.24) * above / 0.6, 0.075)
    elif stage.time == "sunset":
        _sun(stage, random.uniform(0.2, 0.8) * width, horizon + 0.07, 0.13, (255, 226, 128), glow=(255, 150, 84))
        _bands(stage, horizon, (250, 140, 110))
    elif stage.time == "dawn":
        _sun(stage, random.uniform(0.1, 0.9) * width, horizon + 0.16, 0.07, (255, 250, 226), glow=(255, 238, 206))
        _bands(stage, horizon, (255, 236, 240))
    elif stage.time == "day":
        _sun(stage, random.uniform(0.1, 0.9) * width, height - 0.15, 0.075, (255, 224, 96), glow=(214, 232, 226))
        for _ in range(random.randint(1, 3)):
            _cloud(stage, random.uniform(0, width), height - random.uniform(0.12, 0.6) * above, (252, 253, 255))
    elif stage.time in ("rain", "snow"):
        colour = mix(stage.light.sky[0], (60, 70, 92) if stage.time == "rain" else (248, 250, 252), 0.45)
        for _ in range(3):
            _cloud(stage, random.uniform(0, width), height - random.uniform(0.04, 0.3) * above, colour, 1.5)


def paint_weather(stage: Stage) -> None:
    """What is in the air in front of everything: flakes, drops, banks of fog."""
    random, width, height = stage.random, stage.width, stage.height
    area = width * height
    if stage.time == "snow":
        for radius, count in ((0.0075, 30), (0.0125, 22)):
            flakes = [(random.uniform(0, width), random.uniform(0, height)) for _ in range(round(count * area))]
            stage.canvas.dots(flakes, radius, (255, 255, 255))
    elif stage.time == "rain":
        for _ in range(round(42 * area)):
            x, y, length = random.uniform(0, width), random.uniform(0, height), random.uniform(0.05, 0.09)
            slant = length * 0.22
            drop = polygon((x, y), (x + 0.007, y), (x - slant + 0.007, y - length), (x - slant, y - length))
            stage.canvas.fill(drop, (198, 214, 232))


def stars(stage: Stage, lowest: float, count: int) -> None:
    """Small stars, a few of them larger."""
    random = stage.random
    for share, radius in ((0.72, 0.0042), (0.28, 0.0078)):
        number = round(count * share * stage.width * stage.height)
        places = [(random.uniform(0, stage.width), random.uniform(lowest, stage.height)) for _ in range(number)]
        stage.canvas.dots(places, radius, (255, 250, 220))


def _sun(stage: Stage, x: float, y: float, radius: float, colour: Colour, glow: Colour) -> None:
    stage.canvas.fill(ellipse(x, y, radius * 1.42, radius * 1.42), mix(glow, colour, 0.25))
    stage.canvas.fill(ellipse(x, y, radius, radius), colour)


def _moon(stage: Stage, x: float, y: float, radius: float) -> None:
    stage.canvas.fill(ellipse(x, y, radius, radius), MOON)
    if stage.random.random() < 0.5:
        stage.canvas.fill(
            ellipse(x + radius * 0.42, y + radius * 0.16, radius * 0.86, radius * 0.86), stage.light.sky[0]
        )
        return
    for across, up, size in ((-0.3, 0.25, 0.24), (0.35, -0.1, 0.18), (-0.1, -0.45, 0.15)):
        crater = ellipse(x + across * radius, y + up * radius, size * radius, size * radius)
        stage.canvas.fill(crater, mix(MOON, (196, 186, 150), 0.55))


def _cloud(stage: Stage, x: float, y: float, colour: Colour, scale: float = 1.0) -> None:
    size = stage.random.uniform(0.8, 1.25) * scale
    for across, up, radius in ((-0.1, 0, 0.05), (-0.035, 0.035, 0.065), (0.05, 0.02, 0.06), (0.115, 0, 0.042)):
        stage.canvas.fill(ellipse(x + across * size, y + up * size, radius * size, radius * size), colour)
    stage.canvas.fill(ellipse(x, y - 0.025 * size, 0.15 * size, 0.034 * size), colour)


def _bands(stage: Stage, horizon: float, colour: Colour) -> None:
    """Long thin clouds that catch the low sun."""
    random = stage.random
    for _ in range(random.randint(2, 4)):
        x, y = random.uniform(0, stage.width), random.uniform(horizon + 0.18, stage.height - 0.06)
        length = random.uniform(0.12, 0.26)
        stage.canvas.fill(
            ribbon([(x - length, y), (x, y + 0.008), (x + length, y)], 0.012, 0.02),
            mix(colour, stage.light.sky[1], 0.35),
        )
