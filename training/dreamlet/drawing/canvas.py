"""A picture being painted: shapes in, pixels out. Coordinates start at the lower left, one unit is the shorter side."""

import numpy as np
from PIL import Image, ImageDraw

from training.dreamlet.drawing.colours import Colour
from training.dreamlet.drawing.geometry import Point, Points


class Canvas:
    """Paints polygons at a multiple of the final size, which smooths their edges when it is scaled down."""

    def __init__(self, width: int, height: int, pixels_per_pixel: float) -> None:
        self._size = (width, height)
        self._drawn = (round(width * pixels_per_pixel), round(height * pixels_per_pixel))
        self._unit = min(self._drawn)
        self.width = width / min(width, height)
        """In units: 1.5 for a picture of 3:2."""
        self.height = height / min(width, height)
        """In units: 1.5 for a picture of 2:3."""
        self._image = Image.new("RGB", self._drawn, None)
        self._pen = ImageDraw.Draw(self._image)

    def gradient(self, top: Colour, middle: Colour, bottom: Colour, down_to: float) -> None:
        """Fill the picture from its upper edge; the last colour is reached at height `down_to` and kept below it."""
        rows = self._drawn[1]
        position = np.linspace(0.0, 1.0, rows) * self.height / max(self.height - down_to, 1e-3)
        stops = np.array([top, middle, bottom], dtype=np.float64)
        column = np.stack([np.interp(position, (0.0, 0.55, 1.0), stops[:, channel]) for channel in range(3)], axis=1)
        strip = Image.fromarray(column.round().astype(np.uint8)[:, None])
        self._image.paste(strip.resize(self._drawn, Image.Resampling.NEAREST))

    def fill(self, points: Points, colour: Colour) -> None:
        """Paint a polygon."""
        pixels = points * (self._unit, -self._unit) + np.array((-0.5, self._drawn[1] - 0.5))
        self._pen.polygon(pixels.ravel().tolist(), fill=colour)

    def dots(self, centres: list[Point], radius: float, colour: Colour) -> None:
        """Paint many small discs of one size; cheaper than a polygon each."""
        reach = max(radius * self._unit, 0.5)
        for x, y in centres:
            left, top = x * self._unit, self._drawn[1] - y * self._unit
            self._pen.ellipse((left - reach, top - reach, left + reach, top + reach), fill=colour)

    def colour_at(self, x: float, y: float) -> Colour:
        """What is painted at a point so far."""
        column = min(max(round(x * self._unit), 0), self._drawn[0] - 1)
        row = min(max(self._drawn[1] - round(y * self._unit), 0), self._drawn[1] - 1)
        red, green, blue = self._image.getpixel((column, row))  # type: ignore[misc]  # an RGB image gives three numbers
        return (red, green, blue)

    def finished(self) -> Image.Image:
        """The picture at its final size. Shrinking averages; enlarging keeps hard blocks (pixel art)."""
        factor = self._drawn[0] // self._size[0]
        if factor >= 1:
            return self._image.reduce(factor)
        return self._image.resize(self._size, Image.Resampling.NEAREST)
