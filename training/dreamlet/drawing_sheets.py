"""Contact sheets of the renderer's drawings: `python -m training.dreamlet.drawing_sheets subjects --out FILE`."""

import argparse
import itertools
import sys
import time
from pathlib import Path
from random import Random

from training.dreamlet.captions import draw_example
from training.dreamlet.drawing.render import render
from training.dreamlet.drawings import stacked
from training.dreamlet.scenes import COLOUR_NAMES, PLACE_NAMES, STYLE_NAMES, SUBJECT_NAMES, TIME_NAMES, Scene, Subject
from training.dreamlet.sheets import sheet


def every_subject() -> list[Scene]:
    """Each subject once, the colours going round."""
    colours = itertools.cycle(COLOUR_NAMES)
    return [Scene((Subject(kind, next(colours)),), "plain", "day", seed=1) for kind in SUBJECT_NAMES]


def every_colour() -> list[Scene]:
    """Two subjects in each colour, by day, at night and at sunset."""
    return [
        Scene((Subject(kind, colour),), place, time_name, seed=2)
        for colour in COLOUR_NAMES
        for kind, place in (("cat", "yard"), ("car", "city"))
        for time_name in ("day", "night", "sunset")
    ]


def every_place() -> list[Scene]:
    """Each place at each time and in each weather."""
    return [Scene((), place, name, seed=3) for place in PLACE_NAMES for name in TIME_NAMES]


def every_style() -> list[Scene]:
    """Each style with a few scenes."""
    trios = (
        ("fox", "orange", "forest"),
        ("boat", "blue", "sea"),
        ("robot", "teal", "city"),
        ("castle", "grey", "mountains"),
    )
    return [
        Scene((Subject(kind, colour),), place, "day", style, seed=4)
        for style in STYLE_NAMES
        for kind, colour, place in trios
    ]


def examples() -> list[Scene]:
    """Scenes as training sees them; their captions are printed."""
    random = Random(5)  # noqa: S311 - pictures, not secrets
    scenes = []
    for number in range(42):
        scene, caption = draw_example(random)
        sys.stdout.write(f"{number:2} {caption}\n")
        scenes.append(scene)
    return scenes


SHEETS = {
    "subjects": (every_subject, 7),
    "colours": (every_colour, 6),
    "places": (every_place, 7),
    "styles": (every_style, 4),
    "examples": (examples, 7),
}


def main() -> None:
    """Read the command line, draw, say how long it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sheet", choices=SHEETS)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    choose, columns = SHEETS[options.sheet]
    scenes = choose()
    started = time.perf_counter()
    pictures = [render(scene) for scene in scenes]
    each_ms = 1000 * (time.perf_counter() - started) / len(scenes)
    sheet(stacked(pictures), columns).save(options.out)
    sys.stdout.write(f"{len(pictures)} pictures, {each_ms:.1f} ms each\n")


if __name__ == "__main__":
    main()
