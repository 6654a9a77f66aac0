"""Captions of scenes, in many variants."""

from random import Random

from training.dreamlet.scenes import EVERYTHING, Said, Scene, Subject, draw_said, draw_scene
from training.dreamlet.vocabulary import (
    COLOUR_WORDS,
    FLAW_WORDS,
    PLACES,
    PRAISE,
    SIZE_WORDS,
    STYLE_WORDS,
    SUBJECTS,
    TIMES,
)

POSTURES = ("sitting", "standing", "resting", "waiting")
ANIMALS = ("cat", "dog", "bird", "rabbit", "fox", "owl", "bear", "penguin")
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def draw_example(random: Random) -> tuple[Scene, str]:
    """A scene and a caption for training, both fresh, at the default shares."""
    said = draw_said(random)
    scene = draw_scene(random, said)
    return scene, caption_for(scene, said, random)


def full_caption(scene: Scene, random: Random) -> str:
    """A caption that says all that the judge reads: subject, colour, place and time."""
    said = EVERYTHING if scene.has_weather else Said(1, colour=True, place=True, time=False, style=False)
    return _one_subject(scene, said, random)


def pair_caption(scene: Scene, random: Random) -> str:
    """A caption that says kind, colour and side of two subjects, and the place."""
    return _two_subjects(scene, Said(2, colour=True, place=True, time=False, style=False), random)


def caption_for(scene: Scene, said: Said, random: Random) -> str:
    """A caption that says so much of a scene and no more, with the noise that people's prompts have."""
    time_is_said = said.time and scene.has_weather
    said = Said(said.subjects, said.colour, said.place, time_is_said, said.style)
    if scene.flaw and random.random() < 0.5:
        return ", ".join(random.sample(FLAW_WORDS[scene.flaw], random.randint(1, 2)))
    if random.random() < 0.05:
        return _single_word(scene, said, random)
    if not scene.subjects:
        caption = _landscape(scene, said, random)
    elif len(scene.subjects) == 2:
        caption = _two_subjects(scene, said, random)
    else:
        caption = _one_subject(scene, said, random)
    return _decorated(caption, scene, said, random)


def _word(words: tuple[str, ...], random: Random) -> str:
    """The usual word most of the time, else a synonym."""
    return words[0] if random.random() < 0.55 else random.choice(words)


def _with_article(noun: str, random: Random) -> str:
    roll = random.random()
    if roll < 0.12:
        return noun
    if roll < 0.2:
        return f"the {noun}"
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _noun(subject: Subject, said: Said, random: Random) -> str:
    words = [random.choice(SIZE_WORDS[subject.size])] if subject.size != "normal" else []
    if said.colour:
        words.append(_word(COLOUR_WORDS[subject.colour], random))
    return " ".join([*words, _word(SUBJECTS[subject.kind].words, random)])


def _one_subject(scene: Scene, said: Said, random: Random) -> str:
    (subject,) = scene.subjects
    form = random.random()
    noun = _noun(subject, said, random)
    named = _with_article(noun, random)
    if said.colour and form > 0.9:
        plain = Said(1, colour=False, place=said.place, time=said.time, style=said.style)
        colour = _word(COLOUR_WORDS[subject.colour], random)
        kind = _with_article(_noun(subject, plain, random), random)
        named = random.choice((f"{kind} that is {colour}", f"{kind}, {colour}", f"{kind} in {colour}"))
    where = _word(PLACES[scene.place].phrases, random) if said.place else ""
    when = _word(TIMES[scene.time].phrases, random) if said.time else ""
    if where and subject.kind in ANIMALS and random.random() < 0.2:
        named = f"{named} {random.choice(POSTURES)}"
    if when and form < 0.14:
        return f"{when}, {named} {where}".rstrip()
    if where and form < 0.26:
        return f"{where}, {named} {when}".rstrip()
    if form < 0.34:
        # People also write lists.
        bare = random.choice(TIMES[scene.time].alone) if said.time else ""
        return ", ".join(part for part in (noun, where, bare) if part)
    if form < 0.42:
        return " ".join(part for part in (random.choice(("a picture of", "a drawing of")), named, when, where) if part)
    return " ".join(part for part in (named, where, when) if part)


def _two_subjects(scene: Scene, said: Said, random: Random) -> str:
    left, right = (_with_article(_noun(subject, said, random), random) for subject in scene.subjects)
    form = random.random()
    if form < 0.4:
        pair = f"{left} and {right}"
    elif form < 0.6:
        pair = f"{left} {random.choice(('next to', 'beside'))} {right}"
    elif form < 0.75:
        pair = f"{left} {random.choice(('to the left of', 'left of'))} {right}"
    elif form < 0.9:
        pair = f"{right} {random.choice(('to the right of', 'right of'))} {left}"
    else:
        pair = f"{left} on the left, {right} on the right"
    where = _word(PLACES[scene.place].phrases, random) if said.place else ""
    when = _word(TIMES[scene.time].phrases, random) if said.time else ""
    return " ".join(part for part in (pair, where, when) if part)


def _landscape(scene: Scene, said: Said, random: Random) -> str:
    landscape = _word(PLACES[scene.place].landscapes, random)
    if not said.time:
        return landscape
    when = TIMES[scene.time]
    roll = random.random()
    if roll < 0.6:
        return f"{landscape} {_word(when.phrases, random)}"
    if roll < 0.8:
        article, _, rest = landscape.rpartition("a ") if landscape.startswith("a ") else ("", "", landscape)
        adjective = random.choice(when.adjectives)
        start = _with_article(adjective, random) if article or landscape.startswith("a ") else adjective
        return f"{start} {rest}"
    return f"{landscape}, {random.choice(when.alone)}"


def _single_word(scene: Scene, said: Said, random: Random) -> str:
    """One property alone: what a negative prompt looks like."""
    choices = [random.choice(PLACES[scene.place].landscapes)] if said.place or not scene.subjects else []
    if said.time:
        choices += [random.choice(TIMES[scene.time].alone)] * 3
    if said.style:
        choices.append(random.choice(STYLE_WORDS[scene.style]))
    if len(scene.subjects) == 1:
        choices.append(random.choice(SUBJECTS[scene.subjects[0].kind].words))
        if said.colour:
            choices.append(random.choice(COLOUR_WORDS[scene.subjects[0].colour]))
    if not choices:
        return _two_subjects(scene, said, random)
    return random.choice(choices)


def _decorated(caption: str, scene: Scene, said: Said, random: Random) -> str:
    """The caption with its style, praise that means nothing, and now and then a word that nobody knows."""
    if said.style:
        style = random.choice(STYLE_WORDS[scene.style])
        roll = random.random()
        if roll < 0.7:
            caption = f"{caption}, {style}"
        elif roll < 0.85:
            caption = f"{style} of {caption}"
        else:
            caption = f"{style}, {caption}"
    if scene.flaw:
        caption = f"{caption}, {random.choice(FLAW_WORDS[scene.flaw])}"
    elif random.random() < 0.14:
        caption = ", ".join([caption, *random.sample(PRAISE, random.randint(1, 3))])
    if random.random() < 0.05:
        words = caption.split(" ")
        unknown = "".join(random.choice(LETTERS) for _ in range(random.randint(3, 9)))
        words.insert(random.randint(0, len(words)), unknown)
        caption = " ".join(words)
    return caption
