"""Scenes as numbers: the classes that the judge reads and that the text encoder is schooled on."""

from training.dreamlet.scenes import (
    COLOUR_NAMES,
    FLAW_NAMES,
    PLACE_NAMES,
    STYLE_NAMES,
    SUBJECT_NAMES,
    TIME_NAMES,
    Scene,
    Subject,
)

SIZE_NAMES = ("small", "normal", "big")
IGNORED = -100
"""A class that must not be asked for: torch's mark for targets without a loss."""

JUDGED: dict[str, tuple[str, ...]] = {
    "subject": SUBJECT_NAMES,
    "colour": COLOUR_NAMES,
    "place": PLACE_NAMES,
    "time": TIME_NAMES,
}
"""What the judge reads off a picture of one subject."""

SCHOOLED: dict[str, tuple[str, ...]] = {
    "first subject": ("nothing", *SUBJECT_NAMES),
    "first colour": ("nothing", *COLOUR_NAMES),
    "first size": ("nothing", *SIZE_NAMES),
    "second subject": ("nothing", *SUBJECT_NAMES),
    "second colour": ("nothing", *COLOUR_NAMES),
    "second size": ("nothing", *SIZE_NAMES),
    "place": PLACE_NAMES,
    "time": TIME_NAMES,
    "style": STYLE_NAMES,
    "flaw": ("nothing", *FLAW_NAMES),
}
"""What the text encoder learns to tell of a scene; what a caption leaves open it learns as a distribution."""


def judged_labels(scene: Scene) -> list[int]:
    """The classes of a scene with one subject, in the order of JUDGED."""
    (subject,) = scene.subjects
    return [
        SUBJECT_NAMES.index(subject.kind),
        COLOUR_NAMES.index(subject.colour),
        PLACE_NAMES.index(scene.place),
        TIME_NAMES.index(scene.time) if scene.has_weather else IGNORED,
    ]


def schooled_labels(scene: Scene) -> list[int]:
    """The classes of any scene, in the order of SCHOOLED."""
    subjects: list[Subject | None] = [*scene.subjects, None, None][:2]
    labels = []
    for subject in subjects:
        if subject is None:
            labels += [0, 0, 0]
        else:
            labels += [
                1 + SUBJECT_NAMES.index(subject.kind),
                1 + COLOUR_NAMES.index(subject.colour),
                1 + SIZE_NAMES.index(subject.size),
            ]
    return [
        *labels,
        PLACE_NAMES.index(scene.place),
        TIME_NAMES.index(scene.time),
        STYLE_NAMES.index(scene.style),
        1 + FLAW_NAMES.index(scene.flaw) if scene.flaw else 0,
    ]
