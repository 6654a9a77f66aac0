"""Every subject that can be drawn: its drawing, its size, where it rests."""

from collections.abc import Callable
from dataclasses import dataclass

from training.dreamlet.drawing import animals, buildings, plants, things
from training.dreamlet.drawing.colours import Paint
from training.dreamlet.drawing.figure import Figure


@dataclass(frozen=True, slots=True)
class Drawing:
    """How one kind of subject is drawn."""

    draw: Callable[[Figure, Paint], None]
    scale: float = 1.0
    """Against the common height; wide things are drawn smaller."""
    lift: float = 0.0
    """How far above the ground it hovers, in its own heights."""


DRAWINGS: dict[str, Drawing] = {
    "cat": Drawing(animals.cat),
    "dog": Drawing(animals.dog, 0.98),
    "bird": Drawing(animals.bird, 0.92),
    "fish": Drawing(animals.fish, 0.92, lift=0.1),
    "rabbit": Drawing(animals.rabbit, 0.96),
    "fox": Drawing(animals.fox, 0.96),
    "owl": Drawing(animals.owl),
    "bear": Drawing(animals.bear),
    "penguin": Drawing(animals.penguin),
    "turtle": Drawing(animals.turtle, 0.92),
    "butterfly": Drawing(animals.butterfly, 0.95, lift=0.16),
    "house": Drawing(buildings.house, 1.02),
    "castle": Drawing(buildings.castle, 1.05),
    "lighthouse": Drawing(buildings.lighthouse, 1.15),
    "windmill": Drawing(buildings.windmill, 1.0),
    "tent": Drawing(buildings.tent, 0.9),
    "tree": Drawing(plants.tree, 1.1),
    "flower": Drawing(plants.flower, 1.05),
    "mushroom": Drawing(plants.mushroom, 0.98),
    "cactus": Drawing(plants.cactus, 1.05),
    "pumpkin": Drawing(plants.pumpkin, 0.95),
    "boat": Drawing(things.boat, 1.0),
    "car": Drawing(things.car, 0.88),
    "train": Drawing(things.train, 0.84),
    "rocket": Drawing(things.rocket, 1.05, lift=0.1),
    "balloon": Drawing(things.balloon, 1.05, lift=0.14),
    "ball": Drawing(things.ball, 0.92),
    "star": Drawing(things.five_pointed_star, 0.95, lift=0.08),
    "cup": Drawing(things.cup, 0.94),
    "robot": Drawing(things.robot),
    "snowman": Drawing(things.snowman),
    "umbrella": Drawing(things.umbrella, 0.98),
    "gift": Drawing(things.gift, 0.94),
}
"""By the subject's name."""
