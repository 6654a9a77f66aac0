"""The places with a roof: their time and weather is seen through a window."""

from training.dreamlet.drawing.colours import WHITE, Colour, darker, lighter, mix
from training.dreamlet.drawing.geometry import arch, box, ellipse, polygon
from training.dreamlet.drawing.light import LAMPLIGHT, LIGHTS
from training.dreamlet.drawing.stage import Stage

MAT_MIDDLE = 0.17


def mat(stage: Stage) -> None:
    """A great round mat on a wooden floor; a window behind."""
    random = stage.random
    skirting = 0.4 * stage.height
    _interior(stage, random.choice(((238, 220, 196), (206, 222, 214), (226, 210, 226))), (188, 142, 100), skirting)
    _window(stage, random.choice((0.06, stage.width - 0.4)), skirting + 0.17, 0.34, 0.32)
    colour = random.choice(((196, 84, 84), (70, 136, 148), (132, 104, 168), (214, 150, 74), (92, 140, 96)))
    x, y = stage.width / 2, MAT_MIDDLE * stage.height - 0.01
    for share, tone in ((1.0, darker(colour)), (0.93, colour), (0.7, lighter(colour, 0.5)), (0.6, colour)):
        stage.put(ellipse(x, y, 0.47 * share * min(stage.width, 1.2), 0.125 * share), tone)


def room(stage: Stage) -> None:
    """A living room: window with curtains, picture, lamp, cupboard."""
    random = stage.random
    skirting = 0.36 * stage.height
    wall = random.choice(((176, 204, 208), (240, 206, 180), (202, 200, 226), (222, 220, 190)))
    _interior(stage, wall, random.choice(((148, 104, 76), (172, 128, 92))), skirting)
    left = random.random() < 0.5
    x = 0.09 if left else stage.width - 0.43
    _window(stage, x, skirting + 0.2, 0.34, 0.34)
    curtain = random.choice(((214, 108, 96), (92, 132, 170), (232, 178, 90)))
    for edge, inward in ((x - 0.05, 0.07), (x + 0.39, -0.07)):
        fold = polygon(
            (edge, skirting + 0.6),
            (edge + inward * 1.3, skirting + 0.6),
            (edge + inward * 0.6, skirting + 0.3),
            (edge + inward, skirting + 0.12),
            (edge, skirting + 0.12),
        )
        stage.put(fold, curtain)
    stage.put(box(x - 0.08, skirting + 0.59, x + 0.42, skirting + 0.61), (120, 84, 60))
    far = stage.width - 0.2 if left else 0.2
    stage.put(box(far - 0.11, skirting - 0.02, far + 0.11, skirting + 0.2), (156, 108, 74))
    for y in (skirting + 0.02, skirting + 0.11):
        stage.put(box(far - 0.09, y, far + 0.09, y + 0.07), (182, 132, 92))
        stage.canvas.dots([(far, y + 0.035)], 0.011, stage.light.on_scenery((244, 214, 130)))
    _lamp(stage, far, skirting + 0.2)


def _interior(stage: Stage, wall: Colour, floor: Colour, skirting: float) -> None:
    stage.canvas.fill(box(0, 0, stage.width, stage.height), stage.light.on_scenery(wall))
    stage.put(box(0, -0.01, stage.width, skirting), floor)
    stage.put(box(0, skirting, stage.width, skirting + 0.026), lighter(wall, 0.6))
    for k in range(1, 4):
        stage.put(box(0, skirting * k / 4, stage.width, skirting * k / 4 + 0.007), darker(floor, 0.86))


def _window(stage: Stage, x: float, bottom: float, wide: float, high: float) -> None:
    """A window, and the time and weather outside it."""
    light, random = LIGHTS[stage.time], stage.random
    stage.put(box(x - 0.025, bottom - 0.025, x + wide + 0.025, bottom + high + 0.025), WHITE)
    strips = 8
    for k in range(strips):
        share = (k + 0.5) / strips
        colour = (
            mix(light.sky[2], light.sky[1], share * 2)
            if share < 0.5
            else mix(light.sky[1], light.sky[0], share * 2 - 1)
        )
        stage.canvas.fill(box(x, bottom + high * k / strips, x + wide, bottom + high * (k + 1) / strips), colour)

    def inside(radius: float) -> tuple[float, float]:
        return random.uniform(x + radius, x + wide - radius), random.uniform(bottom + radius, bottom + high - radius)

    if stage.time == "night":
        stage.canvas.dots([inside(0.01) for _ in range(9)], 0.006, (255, 250, 220))
        stage.canvas.fill(ellipse(x + wide * 0.7, bottom + high * 0.72, 0.04, 0.04), (250, 244, 214))
    elif stage.time in ("day", "dawn", "sunset"):
        up, colour = {"day": (0.7, (255, 228, 110)), "dawn": (0.3, (255, 250, 226)), "sunset": (0.2, (255, 228, 130))}[
            stage.time
        ]
        stage.canvas.fill(ellipse(x + wide * 0.3, bottom + high * up, 0.042, 0.042), colour)
    elif stage.time == "snow":
        stage.canvas.dots([inside(0.014) for _ in range(16)], 0.011, (255, 255, 255))
        stage.canvas.fill(arch(x + wide / 2, bottom, wide / 2, 0.035), (250, 252, 255))
    elif stage.time == "rain":
        for _ in range(12):
            left, low = inside(0.03)
            stage.canvas.fill(
                polygon((left, low), (left + 0.007, low), (left - 0.003, low - 0.028), (left - 0.01, low - 0.028)),
                (214, 226, 240),
            )
    stage.put(box(x + wide / 2 - 0.009, bottom, x + wide / 2 + 0.009, bottom + high), WHITE)
    stage.put(box(x, bottom + high / 2 - 0.009, x + wide, bottom + high / 2 + 0.009), WHITE)
    stage.put(box(x - 0.045, bottom - 0.045, x + wide + 0.045, bottom - 0.02), darker(WHITE, 0.9))


def _lamp(stage: Stage, x: float, y: float) -> None:
    lit = stage.light.lamps_are_lit
    stage.put(box(x - 0.008, y, x + 0.008, y + 0.12), (110, 96, 90))
    stage.put(ellipse(x, y + 0.008, 0.04, 0.012), (110, 96, 90))
    shade = polygon((x - 0.075, y + 0.11), (x - 0.04, y + 0.21), (x + 0.04, y + 0.21), (x + 0.075, y + 0.11))
    stage.canvas.fill(shade, LAMPLIGHT if lit else stage.light.on_scenery((246, 232, 206)))
