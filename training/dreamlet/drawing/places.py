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
    """Where subjects stand, as a share of the picture's height from below: LOW or HIGH."""
    is_outdoors: bool = True
    """Whether weather falls in front of the picture."""
    front: Callable[[Stage, float], None] | None = None
    """What stands before the subjects' feet, given their base in units."""
    casts_shadows: bool = True
    """Whether there is ground for a shadow to fall on."""


LOW, HIGH = 2 / 16, 3 / 16
"""Two or three latent cells of a picture of native height: a subject gives the same latents in every place."""

PLACES: dict[str, Place] = {
    "mat": Place(interiors.mat, HIGH, is_outdoors=False),
    "yard": Place(nature.yard, HIGH, front=nature.yard_front),
    "mountains": Place(nature.mountains, LOW),
    "sea": Place(nature.sea, HIGH, front=nature.sea_front, casts_shadows=False),
    "beach": Place(nature.beach, LOW),
    "desert": Place(nature.desert, LOW),
    "forest": Place(nature.forest, LOW, front=nature.forest_front),
    "city": Place(elsewhere.city, LOW),
    "space": Place(elsewhere.space, HIGH, is_outdoors=False, casts_shadows=False),
    "room": Place(interiors.room, LOW, is_outdoors=False),
    "plain": Place(elsewhere.plain, HIGH, is_outdoors=False),
}
"""By name. `plain` and `space` know no time or weather."""
