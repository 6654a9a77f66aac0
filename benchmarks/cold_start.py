"""How soon a server answers, and how soon it draws: from the start of its process to `/health` and the first picture.

The picture is asked for as soon as the port answers, as somebody does who waits for the server. Each start is a new
process on a free port. The first one finds an empty DATA_DIR, as on a fresh clone; the others find what it kept. Files
are as warm in the system's cache as the start before left them. Goals, for the built-in model: `/health` in 0.7 s, the
picture in 3.0 s, and in 8 s on the first start.

`--against FOLDER` starts another checkout in turn with this one, and compares pair by pair.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.common.models import from_any_folder
from benchmarks.common.pairs import Summary, interleave, ratios
from benchmarks.common.report import Report
from benchmarks.common.serving import RunningServer, client, server_timing
from server.config import DEFAULT_MODEL_ID, REPOSITORY

HEALTH_GOAL_S = 0.7
PICTURE_GOAL_S = 3.0
FIRST_START_GOAL_S = 8.0
PROMPT = "a cat on a mat, digital art"


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Seconds of one start."""

    health_s: float
    """To the first answer of `/health`."""
    ready_s: float
    """To the moment when the engine took the request."""
    picture_s: float
    """To the last byte of the first picture."""
    load_s: dict[str, float]
    """Phases of the engine process's start, in order, from when its own code runs."""
    draw_s: dict[str, float]
    """Of the picture, from `Server-Timing`: encode, denoise, decode, png."""

    @property
    def parts(self) -> dict[str, float]:
        """What the time to the first picture is made of; the parts add up. The gateway's imports go on beside them."""
        drawing_s = self.picture_s - self.ready_s
        return {
            "settings, two interpreters": self.ready_s - sum(self.load_s.values()),
            **{f"engine: {name}": seconds for name, seconds in self.load_s.items()},
            "sampler table, noise, HTTP": drawing_s - sum(self.draw_s.values()),
            **{f"picture: {name}": seconds for name, seconds in self.draw_s.items()},
        }


def main() -> None:
    """Start servers, and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cold_start",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", default=DEFAULT_MODEL_ID, help="folder or id (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="starts after the first (default: %(default)s)")
    parser.add_argument("--against", type=Path, help="another checkout, with packages that suit this interpreter")
    options = parser.parse_args()
    report = Report("cold_start", {name: str(value) for name, value in vars(options).items() if value is not None})
    checkouts = {"ours": REPOSITORY} | ({"theirs": options.against.resolve()} if options.against else {})
    with tempfile.TemporaryDirectory() as kept:
        starters = {
            name: partial(measured_start, options.model, folder, Path(kept) / name)
            for name, folder in checkouts.items()
        }
        first = {name: found for name, [found] in interleave(starters, 1, "first start").items()}
        starts = interleave(starters, options.repeats, "start")
    results: dict[str, object] = {}
    for name, found in starts.items():
        milestones = {
            "/health answers": Summary.of([start.health_s for start in found]),
            "engine ready": Summary.of([start.ready_s for start in found]),
            "first picture": Summary.of([start.picture_s for start in found]),
        }
        parts = {part: Summary.of([start.parts[part] for start in found]) for part in found[0].parts}
        for title, summaries, alone in (
            (f"Seconds since the start, {name}", milestones, milestones_of(first[name])),
            (f"Seconds of each part, {name}", parts, first[name].parts),
        ):
            report.table(title, ["", "median", "min", "max", "first start"], rows_of(summaries, alone))
        results[name] = {"since_start_s": milestones, "parts_s": parts, "first_start": first[name]}
    ours = starts["ours"]
    report.goal(
        "start to the first /health, median", Summary.of([start.health_s for start in ours]).median, HEALTH_GOAL_S, " s"
    )
    report.goal(
        "start to the first picture, median",
        Summary.of([start.picture_s for start in ours]).median,
        PICTURE_GOAL_S,
        " s",
    )
    report.goal("first start to its picture", first["ours"].picture_s, FIRST_START_GOAL_S, " s")
    if "theirs" in starts:
        paired = ratios([start.picture_s for start in ours], [start.picture_s for start in starts["theirs"]])
        print(f"\nfirst picture, ours as a share of theirs: {paired:.2f}")
        results["ratio"] = paired
    report.finish(results)


def milestones_of(start: Start) -> dict[str, float]:
    """As the table names them."""
    return {"/health answers": start.health_s, "engine ready": start.ready_s, "first picture": start.picture_s}


def rows_of(summaries: dict[str, Summary], alone: dict[str, float]) -> list[list[str]]:
    """A row each; what only the first start has stands below."""
    rows = [
        [name, f"{seconds.median:.2f}", f"{seconds.min:.2f}", f"{seconds.max:.2f}", _seconds(alone.get(name))]
        for name, seconds in summaries.items()
    ]
    return rows + [[name, "", "", "", _seconds(seconds)] for name, seconds in alone.items() if name not in summaries]


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.2f}"


def measured_start(model: str, checkout: Path, data_dir: Path, _number: int) -> Start:
    """Start a server of a checkout, draw a picture, stop it."""
    settings = {"MODEL_ID": from_any_folder(model), "DATA_DIR": str(data_dir), "PYTHONPATH": str(checkout)}
    settings["REQUEST_TIMEOUT"] = "3600"  # a busy machine is slow, not wrong
    with client() as http, RunningServer.started(**settings) as server:
        http.get(f"{server.url}/health").raise_for_status()
        health_s = time.perf_counter() - server.began
        asked_s = time.perf_counter() - server.began
        answer = server.draw(http, prompt=PROMPT, seed=42)
        picture_s = time.perf_counter() - server.began
        phases = {name: milliseconds / 1e3 for name, milliseconds in server_timing(answer).items()}
        load_s = http.get(f"{server.url}/health").json()["engine"]["load_seconds"]
    ready_s = asked_s + phases.pop("queue")
    return Start(health_s=health_s, ready_s=ready_s, picture_s=picture_s, load_s=load_s, draw_s=phases)


if __name__ == "__main__":
    main()
