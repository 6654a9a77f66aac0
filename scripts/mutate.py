"""Would the tests notice? Plants the bugs of `mutations/`, one at a time, and sees whether the named test fails.

python scripts/mutate.py [--jobs 2] [--only NAME ...]

Works on copies of the tree in a temporary folder. Exit code 1: a bug survived. 2: the list or the tests are broken.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal

from mutations import backends, model, networks, pictures, rows, service, start, turns
from mutations.base import Mutation

__all__ = ["ALL_MUTATIONS", "main", "planted", "rot"]

ALL_MUTATIONS: Final = tuple(
    mutation
    for area in (pictures, rows, start, backends, model, networks, turns, service)
    for mutation in area.MUTATIONS
)

ROOT: Final = Path(__file__).resolve().parent.parent

ONE_TEST_TIMEOUT_S: Final = 60.0
ALL_TESTS_TIMEOUT_S: Final = 300.0

# Importing these takes ten times as long as the tests do. A server process imports them once, and every run is a fork
# of it; what is mutated is imported after the fork.
HEAVY_MODULES: Final = (
    "pytest",
    "torch",
    "diffusers.image_processor",
    "diffusers.models.autoencoders",
    "diffusers.models.unets.unet_2d_condition",
    "diffusers.schedulers",
    "transformers.models.clip.modeling_clip",
    "transformers.models.clip.tokenization_clip",
    "fastapi",
    "pydantic_settings",
    "structlog",
    "uvicorn",
)

Verdict = Literal["caught", "SURVIVED", "HUNG", "BROKEN"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one planted bug."""

    mutation: Mutation
    verdict: Verdict
    """`BROKEN`: the test did not get to the point where it could have noticed, for instance for a syntax error."""
    seconds: float
    output: str
    """pytest's own words."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="run so many at once (default: 2)")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[mutation.name for mutation in ALL_MUTATIONS],
        metavar="NAME",
        help="plant these alone, and show what the tests say to them",
    )
    options = parser.parse_args(arguments)
    mutations = [mutation for mutation in ALL_MUTATIONS if not options.only or mutation.name in options.only]
    began = time.monotonic()
    # For the processes that run the tests: threads that wait for each other's cores make a step a hundred times slower.
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    with tempfile.TemporaryDirectory(prefix="mutate-") as name:
        folder = Path(name)
        pristine = folder / "pristine"
        _copy_tree(pristine)
        complaints = rot(mutations, pristine)
        if complaints:
            print("scripts/mutations/ no longer fits the code:", *complaints, sep="\n  ")
            return 2
        tests = sorted({mutation.test for mutation in mutations})
        exit_code, output = _run_tests(pristine, tests, ALL_TESTS_TIMEOUT_S)
        if exit_code != 0:
            print(output, "The tests must pass before anything is planted.", sep="\n")
            return 2
        print(f"{len(tests)} tests pass without a bug ({time.monotonic() - began:.0f} s); now with one each")
        outcomes = _try_all(mutations, pristine, options.jobs, is_talkative=bool(options.only))
    return _summed_up(outcomes, time.monotonic() - began)


def rot(mutations: Iterable[Mutation], root: Path) -> list[str]:
    """What is wrong with the list, a line each: a fragment must occur exactly once in its file."""
    complaints = []
    for mutation in mutations:
        path = root / mutation.file
        times = path.read_text(encoding="utf-8").count(mutation.old) if path.is_file() else 0
        if times != 1:
            complaints.append(f"{mutation.name}: {mutation.old!r} occurs {times} times in {mutation.file}")
    return complaints


def planted(mutation: Mutation, source: str) -> str:
    """The source with the bug in it."""
    return source.replace(mutation.old, mutation.new)


def _copy_tree(destination: Path) -> None:
    """Copy what git knows or would add, as it stands in the working tree."""
    listing = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],  # noqa: S607 - git is wherever the caller has it
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listing.stdout.split("\0")):
        source = ROOT / name
        if source.is_file():  # else it has been deleted since git last heard of it
            target = destination / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)


def _try_all(mutations: Sequence[Mutation], pristine: Path, jobs: int, *, is_talkative: bool) -> list[Outcome]:
    """Plant every bug in a tree of its own, several at once, and print a line for each."""
    outcomes = []
    width = max(len(mutation.name) for mutation in mutations)
    with ThreadPoolExecutor(jobs) as pool:
        try:
            for outcome in pool.map(partial(_try, pristine=pristine), mutations):
                outcomes.append(outcome)
                mutation = outcome.mutation
                if is_talkative:
                    print(outcome.output)
                line = f"{outcome.verdict:8}  {outcome.seconds:5.1f} s  {mutation.name:{width}}  {mutation.test}"
                print(line, flush=True)
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise
    return outcomes


def _try(mutation: Mutation, pristine: Path) -> Outcome:
    began = time.monotonic()
    tree = pristine.with_name(mutation.name)
    shutil.copytree(pristine, tree)
    path = tree / mutation.file
    path.write_text(planted(mutation, path.read_text(encoding="utf-8")), encoding="utf-8")
    exit_code, output = _run_tests(tree, [mutation.test], ONE_TEST_TIMEOUT_S)
    shutil.rmtree(tree)
    # pytest's exit codes: 1 is "tests ran and some failed"; 2 and above, that they could not be collected or run.
    verdicts: dict[int | None, Verdict] = {0: "SURVIVED", 1: "caught", None: "HUNG"}
    return Outcome(mutation, verdicts.get(exit_code, "BROKEN"), time.monotonic() - began, output)


def _run_tests(tree: Path, tests: Sequence[str], timeout_s: float) -> tuple[int | None, str]:
    """Run tests of a tree in a fresh process.

    Returns:
        pytest's exit code (None: not finished in time), and its words.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(HEAVY_MODULES))
    log = tree.with_name(f"{tree.name}.log")
    process = context.Process(target=_pytest, args=(tree, tests, log))
    process.start()
    process.join(timeout_s)
    is_hung = process.is_alive()
    if is_hung:
        process.kill()
        process.join()
    words = log.read_text(encoding="utf-8", errors="replace") if log.exists() else "the process never began"
    return None if is_hung else process.exitcode, words


def _pytest(tree: Path, tests: Sequence[str], log: Path) -> None:
    """Run pytest in this process, which is for nothing else."""
    with log.open("wb") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    os.chdir(tree)
    # pytest collects garbage several times; it need not search what the fork inherited.
    gc.freeze()
    import pytest  # noqa: PLC0415 - the parent process needs neither it nor the time it takes

    # What was imported before the fork has not had its assertions rewritten; it is not what is tested.
    warnings = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    # Plugins that no test of ours needs, and that take their time.
    plugins = ["-p", "no:anyio", "-p", "no:cacheprovider"]
    sys.exit(pytest.main(["-q", "-x", "--tb=short", *plugins, *warnings, *tests]))


def _summed_up(outcomes: Sequence[Outcome], seconds: float) -> int:
    missed = [outcome for outcome in outcomes if outcome.verdict != "caught"]
    for outcome in missed:
        print(f"\n{outcome.verdict} {outcome.mutation.name}: {outcome.mutation.why}\n{outcome.output}")
    print(f"{len(outcomes) - len(missed)} of {len(outcomes)} planted bugs caught, in {seconds:.0f} s")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
