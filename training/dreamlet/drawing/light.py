"""What a time of day or a weather does to colours: the sky's, the scenery's and the subject's."""

from dataclasses import dataclass

from training.dreamlet.drawing.colours import Colour, mix, multiply


@dataclass(frozen=True, slots=True)
class Light:
    """How one time or weather lights a scene."""

    sky: tuple[Colour, Colour, Colour]
    """Top, middle and horizon."""
    scenery: tuple[float, float, float]
    """The colour of the light on the surroundings."""
    subject: tuple[float, float, float]
    """The light on the subject: weaker on purpose, so that a red cat is red at night too."""
    haze: Colour
    """What far things fade into."""
    near_haze: float
    far_haze: float
    lamps_are_lit: bool = False

    def on_scenery(self, colour: Colour, distance: float = 0.0) -> Colour:
        """A colour of the surroundings, `distance` from 0 (here) to 1 (the horizon)."""
        haze = self.near_haze + (self.far_haze - self.near_haze) * distance
        return mix(multiply(colour, self.scenery), self.haze, haze)

    def on_subject(self, colour: Colour) -> Colour:
        """A colour of the subject."""
        return mix(multiply(colour, self.subject), self.haze, self.near_haze * 0.4)


LIGHTS: dict[str, Light] = {
    "day": Light(
        sky=((84, 164, 232), (138, 198, 242), (208, 234, 248)),
        scenery=(1.0, 1.0, 1.0),
        subject=(1.0, 1.0, 1.0),
        haze=(190, 220, 242),
        near_haze=0.0,
        far_haze=0.22,
    ),
    "night": Light(
        sky=((14, 18, 54), (28, 36, 86), (58, 68, 126)),
        scenery=(0.36, 0.42, 0.66),
        subject=(0.93, 0.91, 0.97),
        haze=(34, 42, 92),
        near_haze=0.06,
        far_haze=0.42,
        lamps_are_lit=True,
    ),
    "sunset": Light(
        sky=((84, 58, 140), (226, 96, 112), (254, 172, 84)),
        scenery=(0.98, 0.74, 0.68),
        subject=(1.0, 0.94, 0.9),
        haze=(236, 126, 100),
        near_haze=0.05,
        far_haze=0.36,
    ),
    "dawn": Light(
        sky=((126, 158, 222), (214, 190, 226), (255, 226, 204)),
        scenery=(0.94, 0.9, 0.98),
        subject=(0.98, 0.97, 1.0),
        haze=(240, 212, 224),
        near_haze=0.1,
        far_haze=0.6,
    ),
    "snow": Light(
        sky=((158, 182, 210), (190, 208, 226), (222, 232, 240)),
        scenery=(0.9, 0.95, 1.0),
        subject=(1.0, 1.0, 1.0),
        haze=(222, 232, 242),
        near_haze=0.04,
        far_haze=0.4,
    ),
    "rain": Light(
        sky=((82, 96, 120), (112, 128, 150), (150, 164, 178)),
        scenery=(0.66, 0.72, 0.8),
        subject=(0.9, 0.92, 0.96),
        haze=(126, 142, 160),
        near_haze=0.06,
        far_haze=0.42,
        lamps_are_lit=True,
    ),
    "fog": Light(
        sky=((196, 202, 206), (208, 213, 215), (220, 224, 224)),
        scenery=(0.92, 0.94, 0.94),
        subject=(0.98, 0.98, 0.98),
        haze=(216, 220, 221),
        near_haze=0.34,
        far_haze=0.88,
    ),
}
"""By the name of the time or weather."""

SNOW_COVER: Colour = (236, 242, 250)
LAMPLIGHT: Colour = (255, 222, 120)
