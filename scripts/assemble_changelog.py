"""Moves the lines of `changelog.d/` into CHANGELOG.md, under a version and by kind.

    python scripts/assemble_changelog.py           print what is not released yet
    python scripts/assemble_changelog.py 0.1.0     release it: write CHANGELOG.md, remove the files

Needs nothing but Python.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

__all__ = ["assemble", "main", "release"]

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("added", "changed", "fixed", "removed", "security")
_NAME = re.compile(rf"[a-z0-9]+(-[a-z0-9]+)*\.({'|'.join(KINDS)})\.md")
_FIRST_VERSION = re.compile(r"^## ", flags=re.MULTILINE)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Move the lines of changelog.d/ into CHANGELOG.md.")
    parser.add_argument("version", nargs="?", help="the version to release, as 0.1.0; left out: only print")
    version = parser.parse_args(arguments).version
    if version is None:
        print(assemble(ROOT / "changelog.d"))
    else:
        release(ROOT, version, datetime.now(UTC).date().isoformat())


def assemble(folder: Path) -> str:
    """Everything that is not released yet, as Markdown, by kind.

    Raises:
        SystemExit: a file's name is not NAME.KIND.md; one line.
    """
    files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    for path in files:
        if not _NAME.fullmatch(path.name):
            raise SystemExit(f"{path.name} must be named NAME.KIND.md, where KIND is one of {', '.join(KINDS)}")
    sections: list[str] = []
    for kind in KINDS:
        entries = [_entry(path.read_text()) for path in files if path.name.endswith(f".{kind}.md")]
        if entries:
            sections.append(f"### {kind.capitalize()}\n\n" + "\n".join(entries))
    return "\n\n".join(sections)


def release(root: Path, version: str, date: str) -> None:
    """Write what is not released yet into CHANGELOG.md above the versions before, and remove its files.

    Args:
        root: the repository.
        version: such as 0.1.0.
        date: such as 2026-11-23.

    Raises:
        SystemExit: there is nothing to release, or a file's name is wrong; one line.
    """
    entries = assemble(root / "changelog.d")
    if not entries:
        raise SystemExit("changelog.d/ holds nothing to release")
    changelog = root / "CHANGELOG.md"
    before = changelog.read_text().rstrip("\n") + "\n"
    found = _FIRST_VERSION.search(before)
    head, versions = (before[: found.start()], before[found.start() :]) if found else (before + "\n", "")
    changelog.write_text(f"{head}## {version} ({date})\n\n{entries}\n" + (f"\n{versions}" if versions else ""))
    for path in (root / "changelog.d").glob("*.md"):
        path.unlink()


def _entry(text: str) -> str:
    """One file as an item of a list, its lines aligned."""
    return "* " + text.strip().replace("\n", "\n  ")


if __name__ == "__main__":
    main()
