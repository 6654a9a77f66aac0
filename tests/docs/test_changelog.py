"""The files of `changelog.d/` have names that say their kind, and towncrier makes a release of them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def towncrier(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "towncrier", "build", "--dir", str(folder), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, check=False, text=True, timeout=60)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name in ("pyproject.toml", "CHANGELOG.md", "changelog.d/template.jinja"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / name, tmp_path / name)
    folder = tmp_path / "changelog.d"
    (folder / "b-cats.fixed.md").write_text("Cats have\ntwo ears.\n")
    (folder / "dogs.changed.md").write_text("Dogs.\n")
    (folder / "a-cats.fixed.md").write_text("Cats purr.\n")
    return tmp_path


def test_the_lines_of_this_repository_can_be_assembled():
    drawn = towncrier(REPOSITORY, "--draft", "--version", "unreleased")
    assert drawn.returncode == 0, drawn.stdout + drawn.stderr
    lines = [path.read_text().splitlines()[0] for path in (REPOSITORY / "changelog.d").glob("*.md")]
    assert lines
    assert not [line for line in lines if f"* {line}\n" not in drawn.stdout]


def test_a_release_stands_above_the_one_before_sorted_by_kind_and_name(repository):
    first = towncrier(repository, "--yes", "--version", "0.1.0", "--date", "2026-01-01")
    assert first.returncode == 0, first.stdout + first.stderr
    assert [path.name for path in (repository / "changelog.d").iterdir()] == ["template.jinja"]
    (repository / "changelog.d" / "birds.added.md").write_text("Birds.\n")
    towncrier(repository, "--yes", "--version", "0.2.0", "--date", "2026-02-02")
    head, _, releases = (repository / "CHANGELOG.md").read_text().partition("stands below this line -->\n")
    assert head.startswith("# Changelog\n")
    assert [line for line in releases.splitlines() if line] == [
        "## 0.2.0 (2026-02-02)", "### Added", "* Birds.",
        "## 0.1.0 (2026-01-01)", "### Changed", "* Dogs.", "### Fixed", "* Cats purr.", "* Cats have", "  two ears.",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["cats.md", "cats.improved.md"])
def test_a_name_without_a_kind_is_refused_before_anything_is_written(repository, name):
    (repository / "changelog.d" / name).write_text("Something.\n")
    before = (repository / "CHANGELOG.md").read_text()
    refused = towncrier(repository, "--yes", "--version", "0.2.0", "--date", "2026-02-02")
    assert refused.returncode != 0
    assert name in refused.stdout + refused.stderr
    assert (repository / "CHANGELOG.md").read_text() == before
