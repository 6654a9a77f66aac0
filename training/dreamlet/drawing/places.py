"""Every place that can be drawn: what paints it, and where its subjects stand."""

from collections.abc import Callable
from dataclasses import dataclass

from training.dreamlet.drawing import elsewhere, interiors, nature
from training.dreamlet.drawing.stage import Stage


@dataclass(frozen=True, slots=True)
class Place:
    """One kind of surroundings."""

    paint: Callable[[Stage], None]
    """Everything behind the subjects."""
    base: float
    """Where subjects stand, as a share of the picture's height from below."""
    is_outdoors: bool = True
    """Whether weather falls in front of the picture."""
    front: Callable[[Stage, float], None] | None = None
    """What stands before the subjects' feet, given their base in units."""
    casts_shadows: bool = True
    """Whether there is ground for a shadow to fall on."""


PLACES: dict[str, Place] = {
    "mat": Place(interiors.mat, interiors.MAT_BASE, is_outdoors=False),
    "yard": Place(nature.yard, 0.16, front=nature.yard_front),
    "mountains": Place(nature.mountains, 0.14),
    "sea": Place(nature.sea, 0.18, front=nature.sea_front, casts_shadows=False),
    "beach": Place(nature.beach, 0.13),
    "desert": Place(nature.desert, 0.13),
    "forest": Place(nature.forest, 0.15, front=nature.forest_front),
    "city": Place(elsewhere.city, 0.12),
    "space": Place(elsewhere.space, 0.3, is_outdoors=False, casts_shadows=False),
    "room": Place(interiors.room, 0.13, is_outdoors=False),
    "plain": Place(elsewhere.plain, 0.22, is_outdoors=False),
}
"""By name. `plain` and `space` know no time or weather."""
