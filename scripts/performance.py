"""Keeps docs/performance.md: the figures of the latest run of each benchmark, from benchmarks/results.

python scripts/performance.py [--write | --check]

Each result file ends in one JSON document; what stands between the markers is made from those. Exit code 1 with
--check: the document does not match the files.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

__all__ = ["figures", "main"]

ROOT: Final = Path(__file__).resolve().parent.parent
DOCUMENT: Final = ROOT / "docs" / "performance.md"
RESULTS: Final = ROOT / "benchmarks" / "results"
BEGIN: Final = "<!-- figures: made by scripts/performance.py from benchmarks/results -->"
END: Final = "<!-- end of the figures -->"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    acts = parser.add_mutually_exclusive_group()
    acts.add_argument("--write", action="store_true", help="put the figures into the document")
    acts.add_argument("--check", action="store_true", help="only say whether it has them")
    options = parser.parse_args(arguments)
    before = DOCUMENT.read_text(encoding="utf-8")
    head, _, rest = before.partition(BEGIN)
    _, _, tail = rest.partition(END)
    after = f"{head}{BEGIN}\n\n{figures(RESULTS)}\n{END}{tail}"
    if options.write:
        DOCUMENT.write_text(after, encoding="utf-8")
    elif options.check:
        if after != before:
            print("docs/performance.md lacks the figures of benchmarks/results: run scripts/performance.py --write")
            return 1
    else:
        print(figures(RESULTS))
    return 0


def figures(folder: Path) -> str:
    """What the benchmarks promise, and what came out, as Markdown.

    Args:
        folder: of result files.
    """
    runs = [_run(path) for path in sorted(folder.glob("*.txt"))]
    lines = ["| benchmark | claim | figure | goal | |", "|---|---|---:|---:|---|"]
    lines += [row for run in runs for row in _rows(run)]
    lines += ["", "| benchmark | measured | on | machine otherwise |", "|---|---|---|---|"]
    lines += [_where(run) for run in runs]
    lines += [line for run in runs if run["benchmark"] == "full_size" for line in _full_size(run)]
    return "\n".join(lines) + "\n"


def _run(path: Path) -> Mapping[str, Any]:
    run: dict[str, Any] = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])
    # Some benchmarks have two files, for two ways to run them.
    return run | {"name": path.stem}


def _rows(run: Mapping[str, Any]) -> Iterator[str]:
    for goal in run["goals"]:
        value, limit = (f"{goal[name]:.3g}{goal['unit']}" for name in ("value", "limit"))
        verdict = "met" if goal["is_met"] else "**not met**"
        yield f"| `{run['name']}` | {goal['claim']} | {value} | {limit} | {verdict} |"


def _full_size(run: Mapping[str, Any]) -> Iterator[str]:
    least_s = run["results"]["least_step_s"]
    yield from ("", f"A guided step of {run['settings']['arch']} at {run['settings']['size']} pixels:", "")
    yield "| | s a step | share of the machine's limit | peak memory, MiB | conversion, s | its peak, MiB |"
    yield "|---|---:|---:|---:|---:|---:|"
    for name, found in run["results"]["contenders"].items():
        once = [found["conversion_s"], found["conversion_peak_mib"]]
        cells = [f"{found['step_s']:.3g}", f"{least_s / found['step_s']:.2f}", f"{found['peak_mib']:.0f}"]
        yield f"| {name} | {' | '.join(cells + ['' if value is None else f'{value:.0f}' for value in once])} |"


def _where(run: Mapping[str, Any]) -> str:
    machine = run["machine"]
    state = "idle" if run["is_quiet"] else "busy: trust ratios, not seconds"
    return (
        f"| `{run['name']}` | {run['measured_at'][:10]} | {machine['cpu']}, {machine['cores']} cores, "
        f"torch {machine['torch']} | {state} |"
    )


if __name__ == "__main__":
    raise SystemExit(main())
