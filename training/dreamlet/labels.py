"""Labels of scenes: the classes for judge and text encoder."""

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
"""What the judge reads off a picture, or off a half of it."""
REGIONS = ("whole", "left", "right")
"""Where it looks: a subject that is alone is asked for in the whole picture, one of two in its half."""

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


def judged_labels(scene: Scene) -> list[list[int]]:
    """The classes of a scene with one subject or two, in the order of JUDGED, for each of REGIONS."""
    place = PLACE_NAMES.index(scene.place)
    time = TIME_NAMES.index(scene.time) if scene.has_weather else IGNORED
    whose: list[Subject | None] = [*scene.subjects, None, None] if len(scene.subjects) == 1 else [None, *scene.subjects]
    return [
        [
            SUBJECT_NAMES.index(subject.kind) if subject else IGNORED,
            COLOUR_NAMES.index(subject.colour) if subject else IGNORED,
            place if region == "whole" else IGNORED,
            time if region == "whole" else IGNORED,
        ]
        for region, subject in zip(REGIONS, whose, strict=True)
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
