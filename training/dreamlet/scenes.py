"""Which scenes exist, how often, and which combinations training never shows. (Words are in `captions.py`.)"""

from dataclasses import dataclass
from random import Random

from training.dreamlet.vocabulary import COLOURS, FLAW_WORDS, PLACES, STYLE_WORDS, SUBJECTS, TIMES

SUBJECT_NAMES = tuple(SUBJECTS)
COLOUR_NAMES = tuple(COLOURS)
PLACE_NAMES = tuple(PLACES)
TIME_NAMES = tuple(TIMES)
STYLE_NAMES = tuple(STYLE_WORDS)
FLAW_NAMES = tuple(FLAW_WORDS)
"""Their order numbers the judge's classes."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One thing in a scene."""

    kind: str
    colour: str
    size: str = "normal"


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that a picture shows, bar the chances of its composition, which `seed` settles."""

    subjects: tuple[Subject, ...]
    """None for a landscape; two stand left and right, in this order."""
    place: str
    time: str
    """`day` where the place knows no weather."""
    style: str = "digital"
    flaw: str = ""
    seed: int = 0

    @property
    def has_weather(self) -> bool:
        """Whether time and weather can be seen."""
        return PLACES[self.place].has_weather


@dataclass(frozen=True, slots=True)
class Said:
    """What a caption says of its scene. What it leaves open is what one would expect of such a thing."""

    subjects: int
    colour: bool
    place: bool
    time: bool
    style: bool


EVERYTHING = Said(subjects=1, colour=True, place=True, time=True, style=False)
"""What the captions say on which the model is judged."""


def is_held_out(kind: str, colour: str, place: str) -> bool:
    """Whether this trio is kept for evaluation. Every pair of the three is still seen in training.

    One trio in eleven: for any two of the three there are thirds that hold them out and thirds that do not.
    """
    total = 3 * SUBJECT_NAMES.index(kind) + 5 * COLOUR_NAMES.index(colour) + 7 * PLACE_NAMES.index(place)
    return total % 11 == 0


@dataclass(frozen=True, slots=True)
class Shares:
    """How often things occur in training. What is rare here is learnt late, so that the common is learnt early."""

    landscape: float = 0.07
    pair: float = 0.06
    """Of the scenes, those with two subjects."""
    other_style: float = 0.1
    """Of the scenes, those in another style than the default."""
    big: float = 0.09
    """Of the single subjects."""
    small: float = 0.05
    flaw: float = 0.0
    """Of the scenes, those with a flaw, which a negative prompt can name."""


SHARES = Shares()
STYLE_IS_SAID = 0.35
"""Of the captions, those that name the style."""


def draw_said(random: Random, shares: Shares = SHARES) -> Said:
    """How much a training caption says."""
    roll = random.random()
    if roll < shares.landscape:
        return Said(0, colour=False, place=True, time=random.random() < 0.6, style=random.random() < 0.4)
    return Said(
        subjects=2 if roll > 1 - shares.pair else 1,
        colour=random.random() < 0.86,
        place=random.random() < 0.86,
        time=random.random() < 0.66,
        style=random.random() < STYLE_IS_SAID,
    )


def draw_scene(random: Random, said: Said, shares: Shares = SHARES) -> Scene:
    """A scene of training: what is said is spread evenly, what is left open follows expectation."""
    kinds = [random.choice(SUBJECT_NAMES) for _ in range(said.subjects)]
    if said.place or not kinds:
        place = random.choice(PLACE_NAMES)
    else:
        place = random.choice(SUBJECTS[kinds[0]].places) if random.random() < 0.85 else random.choice(PLACE_NAMES)
    sizes = _draw_sizes(random, len(kinds), shares)
    subjects = tuple(
        Subject(kind, _draw_colour(random, kind, place, is_said=said.colour), size)
        for kind, size in zip(kinds, sizes, strict=True)
    )
    time = "day"
    if PLACES[place].has_weather and (said.time or random.random() < 0.3):
        time = random.choice(TIME_NAMES)
    style = "digital"
    # Only a style that is said can be another than the default.
    if said.style and random.random() < shares.other_style / STYLE_IS_SAID:
        style = random.choice([name for name in STYLE_NAMES if name != style])
    flaw = random.choice(FLAW_NAMES) if random.random() < shares.flaw else ""
    return Scene(subjects, place, time, style, flaw, seed=random.getrandbits(48))


def draw_held_out_scene(random: Random) -> Scene:
    """A scene of evaluation: one subject of a trio that training never shows, at ordinary size, unflawed."""
    while True:
        kind, colour, place = (random.choice(names) for names in (SUBJECT_NAMES, COLOUR_NAMES, PLACE_NAMES))
        if place != "plain" and is_held_out(kind, colour, place):
            break
    time = random.choice(TIME_NAMES) if PLACES[place].has_weather else "day"
    return Scene((Subject(kind, colour),), place, time, seed=random.getrandbits(48))


def _draw_sizes(random: Random, count: int, shares: Shares) -> tuple[str, ...]:
    if count == 2:
        return random.choice((("normal", "normal"), ("normal", "normal"), ("big", "small"), ("small", "big")))
    if count == 0:
        return ()
    roll = random.random()
    return ("big" if roll < shares.big else "small" if roll < shares.big + shares.small else "normal",)


def _draw_colour(random: Random, kind: str, place: str, *, is_said: bool) -> str:
    choices = COLOUR_NAMES if is_said else SUBJECTS[kind].colours
    allowed = [colour for colour in choices if not is_held_out(kind, colour, place)]
    return random.choice(allowed or [colour for colour in COLOUR_NAMES if not is_held_out(kind, colour, place)])
