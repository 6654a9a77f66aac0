"""A drawn thing before it is painted: shapes in parts, in its own coordinates.

The origin is where the thing touches the ground, y points up, and an ordinary thing is about 1 high.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from training.dreamlet.drawing import geometry
from training.dreamlet.drawing.colours import INK, WHITE, Colour
from training.dreamlet.drawing.geometry import Point, Points


@dataclass(frozen=True, slots=True)
class Shape:
    """One filled polygon."""

    points: Points
    colour: Colour
    is_outlined: bool
    """Whether the outline of the part that it belongs to goes around it too."""
    is_shaded: bool
    """Whether it lies partly in shade; only for convex shapes."""


@dataclass(slots=True)
class Figure:
    """Shapes in the order of painting. Each part gets one outline around the union of its shapes."""

    parts: list[list[Shape]] = field(default_factory=lambda: [[]])

    def part(self) -> None:
        """Begin a new part, in front of the last one."""
        self.parts.append([])

    def solid(self, points: Points, colour: Colour) -> None:
        """A flat shape with an outline."""
        self._add(points, colour, is_outlined=True, is_shaded=False)

    def round(self, points: Points, colour: Colour) -> None:
        """A convex shape with an outline and a shaded side."""
        self._add(points, colour, is_outlined=True, is_shaded=True)

    def mark(self, points: Points, colour: Colour) -> None:
        """A flat shape on top, without an outline."""
        self._add(points, colour, is_outlined=False, is_shaded=False)

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """A round mark."""
        self.mark(geometry.ellipse(x, y, radius, radius), colour)

    def line(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        """A thin smooth mark."""
        self.mark(geometry.ribbon(points, width), colour)

    def eye(self, x: float, y: float, radius: float, white: Colour = WHITE) -> None:
        """An eye that looks slightly to the right."""
        self.mark(geometry.ellipse(x, y, radius, radius * 1.12), white)
        self.mark(geometry.ellipse(x + radius * 0.16, y - radius * 0.05, radius * 0.66, radius * 0.8), INK)
        self.disc(x - radius * 0.08, y + radius * 0.36, radius * 0.27, WHITE)

    def _add(self, points: Points, colour: Colour, *, is_outlined: bool, is_shaded: bool) -> None:
        self.parts[-1].append(Shape(points, colour, is_outlined, is_shaded))
