"""Looks for known faults in what is locked: advisories, withdrawn releases, releases below a known-safe one, licences.

Advisories are asked for with pip-audit, which wants the network. Where they cannot be had, the audit says so and fails:
that nothing was found would be no news then. What can be looked at without the network is looked at all the same.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from choose_lock import CUDA12_LOCK, DEFAULT_LOCK
from lock import DEV_LOCK, SITE_LOCK, read_pins

__all__ = ["FAULTS", "NOT_AUDITED", "SAFE_FROM", "main"]

ROOT = Path(__file__).resolve().parent.parent
LOCKS = (DEFAULT_LOCK, CUDA12_LOCK, SITE_LOCK, DEV_LOCK)

FAULTS = 1
NOT_AUDITED = 2

SAFE_FROM: Mapping[str, tuple[str, str]] = {
    "torch": ("2.10", "before, reading weights could run code in spite of weights_only"),
    "diffusers": ("0.38", "before, trust_remote_code could be got round by a model's own files"),
}
"""Package -> the first release that this server may be locked to, and why. Known without a network."""

REFUSED_LICENCES = re.compile(r"\b(AGPL|Affero|SSPL|Server Side Public)\b", re.IGNORECASE)
"""Licences that would bind whoever offers the server to others over a network."""

Run = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the result."""

    text: str
    status: int
    """0, FAULTS or NOT_AUDITED."""


def main(run: Run | None = None) -> int:
    """Print what was found; 0: everything was looked at, and is well. 1: faults. 2: advisories could not be had."""
    run = run or _run
    findings = [*_too_old(), *_licences(), *_consistent(run), *_withdrawn(run), *_advisories(run)]
    for finding in findings:
        print({0: "ok    ", FAULTS: "FAULT ", NOT_AUDITED: "NOT AUDITED "}[finding.status] + finding.text)
    statuses = {finding.status for finding in findings}
    return FAULTS if FAULTS in statuses else max(statuses)


def _too_old() -> Iterator[Finding]:
    for lock in LOCKS:
        pins = read_pins(ROOT / lock)
        for name, (least, reason) in SAFE_FROM.items():
            if name in pins and _numbers(pins[name]) < _numbers(least):
                yield Finding(f"{lock}: {name} {pins[name]} is older than {least}: {reason}", FAULTS)
    names = ", ".join(f"{name} {least}" for name, (least, _) in SAFE_FROM.items())
    yield Finding(f"looked for releases older than {names}", 0)


def _licences() -> Iterator[Finding]:
    """Of the server's packages, as far as they are installed here."""
    kinds: Counter[str] = Counter()
    for name in read_pins(ROOT / DEFAULT_LOCK):
        try:
            metadata = importlib.metadata.metadata(name)
        except importlib.metadata.PackageNotFoundError:
            kinds["not installed here"] += 1
            continue
        classifiers = [line.split(" :: ")[-1] for line in metadata.get_all("Classifier") or [] if "License ::" in line]
        expressions = (
            metadata.get_all("License-Expression") or classifiers or metadata.get_all("License") or ["not said"]
        )
        licence = "; ".join(expressions)
        kinds[licence.splitlines()[0][:60]] += 1
        if REFUSED_LICENCES.search(licence):
            yield Finding(f"{name} is licensed under {licence}", FAULTS)
    yield Finding("licences: " + ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()), 0)


def _consistent(run: Run) -> Iterator[Finding]:
    checked = run([sys.executable, "-m", "pip", "check"])
    output = checked.stdout.strip() or checked.stderr.strip()
    yield Finding(f"pip check: {output}", FAULTS if checked.returncode else 0)


def _withdrawn(run: Run) -> Iterator[Finding]:
    """Releases that their makers have withdrawn ("yanked"): the package index itself tells."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = ["-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps"]
        asked = run([sys.executable, *command, "--report", str(report), "-r", str(ROOT / DEFAULT_LOCK)])
        if asked.returncode or not report.exists():
            yield Finding("withdrawn releases: the package index cannot be reached", NOT_AUDITED)
            return
        packages = json.loads(report.read_text(encoding="utf-8"))["install"]
    for package in packages:
        if package.get("is_yanked"):
            metadata = package["metadata"]
            yield Finding(f"{metadata['name']} {metadata['version']} was withdrawn by its makers", FAULTS)
    yield Finding(f"looked for withdrawn releases among {len(packages)} packages", 0)


def _advisories(run: Run) -> Iterator[Finding]:
    for lock in LOCKS:
        # No --strict: it stops at the first package, and would not tell how many there are.
        asked = run(
            [
                *(sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--progress-spinner", "off"),
                *("--format", "json", "-r", str(ROOT / lock)),
            ]
        )
        try:
            packages: list[dict[str, Any]] = json.loads(asked.stdout)["dependencies"]
        except (ValueError, KeyError):
            reason = next(reversed(asked.stderr.strip().splitlines()), "no answer")
            yield Finding(f"{lock}: the advisory service cannot be reached ({reason[:200]})", NOT_AUDITED)
            continue
        # pip-audit says "no known vulnerabilities" and ends with 0 when the service knows none of the packages.
        skipped = [package["name"] for package in packages if "skip_reason" in package]
        if skipped or not packages:
            yield Finding(
                f"{lock}: the advisory service told nothing about {len(skipped)} of {len(packages)} packages"
                f" ({', '.join(skipped[:3])} ...); run this where it can be reached",
                NOT_AUDITED,
            )
        for package in packages:
            for fault in package.get("vulns", []):
                fixed = ", ".join(fault["fix_versions"]) or "none yet"
                yield Finding(
                    f"{lock}: {package['name']} {package['version']}: {fault['id']}, fixed in {fixed}", FAULTS
                )
        if not skipped and packages:
            yield Finding(f"{lock}: {len(packages)} packages looked up", 0)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own arguments


if __name__ == "__main__":
    sys.exit(main())
