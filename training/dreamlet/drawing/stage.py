"""Context for drawing surroundings: canvas, light, and the scene's random numbers."""

from dataclasses import dataclass
from random import Random

from training.dreamlet.drawing.canvas import Canvas
from training.dreamlet.drawing.colours import Colour, mix
from training.dreamlet.drawing.geometry import Points
from training.dreamlet.drawing.light import LIGHTS, SNOW_COVER, Light


@dataclass(frozen=True, slots=True)
class Stage:
    """A canvas under one light."""

    canvas: Canvas
    time: str
    random: Random

    @property
    def light(self) -> Light:
        """The light of the time or weather."""
        return LIGHTS[self.time]

    @property
    def width(self) -> float:
        """In units of the shorter side."""
        return self.canvas.width

    @property
    def height(self) -> float:
        """In units of the shorter side."""
        return self.canvas.height

    def put(self, points: Points, colour: Colour, distance: float = 0.0) -> None:
        """Paint a piece of scenery as the light shows it."""
        self.canvas.fill(points, self.light.on_scenery(colour, distance))

    def ground(self, points: Points, colour: Colour, distance: float = 0.0) -> None:
        """Paint a piece of ground: white where it has snowed."""
        if self.time == "snow":
            colour = mix(colour, SNOW_COVER, 0.88)
        self.put(points, colour, distance)
