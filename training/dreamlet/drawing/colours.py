"""Colours, and how one is made from another."""

from typing import NamedTuple, TypeAlias

Colour: TypeAlias = tuple[int, int, int]
"""Red, green and blue, 0 to 255 each."""

WHITE: Colour = (246, 245, 240)
INK: Colour = (32, 28, 44)


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """The first colour with a share (0 to 1) of the second stirred in."""
    keep = 1.0 - share
    return (
        round(first[0] * keep + second[0] * share),
        round(first[1] * keep + second[1] * share),
        round(first[2] * keep + second[2] * share),
    )


def multiply(colour: Colour, factors: tuple[float, float, float]) -> Colour:
    """The colour seen in coloured light: channel by channel, clipped at white."""
    red, green, blue = (min(255, round(channel * factor)) for channel, factor in zip(colour, factors, strict=True))
    return (red, green, blue)


def darker(colour: Colour, factor: float = 0.74) -> Colour:
    """The colour in shadow; shadows lean towards violet, as painters have them."""
    return mix(multiply(colour, (factor, factor, factor)), (52, 36, 92), 0.12)


def lighter(colour: Colour, share: float = 0.38) -> Colour:
    """The colour in full light."""
    return mix(colour, (255, 252, 240), share)


def luminance(colour: Colour) -> float:
    """How bright the eye finds it, 0 to 255 (Rec. 601)."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


class Paint(NamedTuple):
    """One thing's own colour in the tones that its drawing needs."""

    main: Colour
    dark: Colour
    light: Colour
    line: Colour
    """For thin marks that must be seen on the main colour."""

    @classmethod
    def of(cls, colour: Colour) -> "Paint":
        """The tones of a colour. On black, marks are lighter than the ground they are drawn on."""
        if luminance(colour) < 75:
            return cls(colour, mix(colour, (8, 6, 20), 0.45), mix(colour, (150, 156, 184), 0.45), (128, 132, 158))
        return cls(colour, darker(colour), lighter(colour), darker(colour, 0.5))
