"""Carries the locked packages to a host without network: `collect` here, `install` there.

    .venv/bin/python scripts/offline_bundle.py collect bundle --python 3.12 --exclude-listed host.txt
    python3 scripts/offline_bundle.py install bundle --system-site-packages

`host.txt` is what `pip freeze` prints on the host: what it has already stays its own (its own torch, say), and the rest
is small. `install` needs nothing but Python, so it runs on the host as it is.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from choose_lock import CUDA_LIBRARY, DEFAULT_LOCK

__all__ = ["main", "names_in_freeze", "platform_and_older"]

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / DEFAULT_LOCK
DEFAULT_PLATFORM = "manylinux_2_28_x86_64"
"""Linux with glibc 2.28 (2018) or newer; what torch's wheels ask for."""
NEEDED_PIP = 23, 3
"""The first pip whose dry run downloads metadata only; an older one would fetch gigabytes to read names."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Carry the locked packages to a host without network.")
    commands = parser.add_subparsers(required=True)

    collecting = commands.add_parser("collect", help="download the wheels into a folder")
    collecting.add_argument("folder", type=Path)
    collecting.add_argument("--lock", type=Path, default=LOCK, help="the lock file (default: requirements.lock.txt)")
    collecting.add_argument("--python", default="{}.{}".format(*sys.version_info), help="the host's version, as 3.12")
    collecting.add_argument(
        "--platform", default=DEFAULT_PLATFORM, help=f"the host's, or an older (default: {DEFAULT_PLATFORM})"
    )
    collecting.add_argument("--only", type=_names, default=[], metavar="A,B", help="only these and what they need")
    collecting.add_argument("--exclude", type=_names, default=[], metavar="A,B", help="not these")
    collecting.add_argument("--exclude-listed", type=Path, metavar="FILE", help="nor what this `pip freeze` names")
    collecting.set_defaults(run=_collect)

    installing = commands.add_parser("install", help="install a folder's wheels without network")
    installing.add_argument("folder", type=Path)
    installing.add_argument(
        "--venv", type=Path, default=ROOT / ".venv", help="made where it is missing (default: .venv)"
    )
    installing.add_argument(
        "--system-site-packages", action="store_true", help="the environment also sees the host's own packages"
    )
    installing.set_defaults(run=_install)

    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except subprocess.CalledProcessError as error:
        return int(error.returncode)  # pip has said why
    return 0


def names_in_freeze(text: str) -> set[str]:
    """Canonical names of the packages that `pip freeze` printed."""
    named = (re.match(r"(?:-e .*#egg=)?([A-Za-z0-9][A-Za-z0-9._-]*)", line) for line in text.splitlines())
    return {_canonical(match[1]) for match in named if match}


def platform_and_older(platform: str) -> list[str]:
    """Every wheel platform that runs on a host of this one: pip takes the name literally, not as "this or older"."""
    modern = re.fullmatch(r"manylinux_2_(\d+)_(\w+)", platform)
    if modern is None:
        return [platform]
    newest, machine = int(modern[1]), modern[2]
    legacy = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}  # PEP 600
    older = [f"manylinux_2_{minor}_{machine}" for minor in range(newest, 4, -1)]
    return older + [f"{name}_{machine}" for minor, name in legacy.items() if minor <= newest]


def _collect(options: argparse.Namespace) -> None:
    """Find the closure by a dry run, take away what the host has, download the rest."""
    import pip  # noqa: PLC0415 - `install` runs where pip may be missing outside a virtual environment

    if tuple(int(part) for part in pip.__version__.split(".")[:2]) < NEEDED_PIP:
        sys.exit(f"pip {pip.__version__} is too old for this: {sys.executable} -m pip install --upgrade pip")
    excluded = {_canonical(name) for name in options.exclude}
    if options.exclude_listed:
        excluded |= names_in_freeze(options.exclude_listed.read_text(encoding="utf-8"))
    host = ["--only-binary", ":all:", "--python-version", options.python]
    for platform in platform_and_older(options.platform):
        host += ["--platform", platform]

    closure = _closure(options.lock, options.only, host)
    unknown = {_canonical(name) for name in options.exclude} - closure.keys()
    if unknown:
        sys.exit(f"not among the packages to collect, so cannot be excluded: {', '.join(sorted(unknown))}")
    if "torch" in excluded:  # its own CUDA libraries belong to it, whatever their names are there
        excluded |= {name for name in closure if CUDA_LIBRARY.match(name)}
    pins = [f"{name}=={version}" for name, version in closure.items() if name not in excluded]
    if not pins:
        sys.exit("nothing is left to collect")
    _pip(sys.executable, "download", "--no-deps", "--dest", str(options.folder), *host, *pins)
    sizes = [wheel.stat().st_size for wheel in options.folder.glob("*.whl")]
    print(f"{options.folder}: {len(sizes)} wheels, {sum(sizes) / 2**20:.1f} MiB, for Python {options.python}")


def _closure(lock: Path, only: Iterable[str], host: Sequence[str]) -> dict[str, str]:
    """Canonical name -> version of the whole lock, or of a few packages and what they need of it."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = ["-c", str(lock), *only] if only else ["-r", str(lock)]
        report = Path(folder) / "report.json"
        _pip(
            sys.executable,
            *("install", "--quiet", "--dry-run", "--ignore-installed", "--target", folder),
            *("--report", str(report), *host, *wanted),
        )
        found = (item["metadata"] for item in json.loads(report.read_text(encoding="utf-8"))["install"])
    return {_canonical(package["name"]): package["version"] for package in found}


def _install(options: argparse.Namespace) -> None:
    """Install every wheel of the folder; what they need must be among them or on the host already."""
    wheels = sorted(str(wheel) for wheel in options.folder.glob("*.whl"))
    if not wheels:
        sys.exit(f"no wheels in {options.folder}")
    python = options.venv / "bin" / "python"
    if not python.exists():
        system = ["--system-site-packages"] if options.system_site_packages else []
        subprocess.run([sys.executable, "-m", "venv", *system, options.venv], check=True)  # noqa: S603 - ourselves
    _pip(str(python), "install", "--no-index", "--find-links", str(options.folder), *wheels)
    print(f"installed. Start the server with: {python} -m server serve")


def _pip(python: str, command: str, *arguments: str) -> None:
    subprocess.run(  # noqa: S603 - our own arguments
        [python, "-m", "pip", command, "--disable-pip-version-check", "--no-input", *arguments], check=True
    )


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _names(text: str) -> list[str]:
    return [name for name in text.replace(",", " ").split() if name]


if __name__ == "__main__":
    sys.exit(main())
