"""The lines of `changelog.d/` have names that say their kind, and become a version of the changelog."""

from __future__ import annotations

from pathlib import Path

import assemble_changelog
import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "changelog.d"
    folder.mkdir()
    (folder / "b-cats.fixed.md").write_text("Cats have\ntwo ears.\n")
    (folder / "dogs.added.md").write_text("Dogs.\n")
    (folder / "a-cats.fixed.md").write_text("Cats purr.\n")
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changelog\n\nThe newest first.\n\n## 0.1.0 (2026-01-01)\n\n### Added\n\n* Cats.\n"
    )
    return tmp_path


def test_the_lines_of_this_repository_can_be_assembled():
    assert assemble_changelog.assemble(REPOSITORY / "changelog.d").startswith("### ")


def test_lines_are_sorted_by_kind_and_name(repository):
    assert assemble_changelog.assemble(repository / "changelog.d") == (
        "### Added\n\n* Dogs.\n\n### Fixed\n\n* Cats purr.\n* Cats have\n  two ears."
    )


def test_a_release_moves_them_above_the_versions_before(repository):
    assemble_changelog.release(repository, "0.2.0", "2026-02-02")
    assert (repository / "CHANGELOG.md").read_text() == (
        "# Changelog\n\nThe newest first.\n\n"
        "## 0.2.0 (2026-02-02)\n\n### Added\n\n* Dogs.\n\n### Fixed\n\n* Cats purr.\n* Cats have\n  two ears.\n\n"
        "## 0.1.0 (2026-01-01)\n\n### Added\n\n* Cats.\n"
    )
    assert list((repository / "changelog.d").iterdir()) == []


def test_the_first_release_stands_below_the_head(repository):
    (repository / "CHANGELOG.md").write_text("# Changelog\n\nThe newest first.\n")
    assemble_changelog.release(repository, "0.1.0", "2026-02-02")
    assert (
        (repository / "CHANGELOG.md")
        .read_text()
        .startswith("# Changelog\n\nThe newest first.\n\n## 0.1.0 (2026-02-02)\n\n### Added\n\n* Dogs.\n")
    )


def test_a_release_of_nothing_is_refused(repository):
    assemble_changelog.release(repository, "0.2.0", "2026-02-02")
    before = (repository / "CHANGELOG.md").read_text()
    with pytest.raises(SystemExit, match="holds nothing to release"):
        assemble_changelog.release(repository, "0.3.0", "2026-02-03")
    assert (repository / "CHANGELOG.md").read_text() == before


@pytest.mark.parametrize("name", ["cats.md", "cats.improved.md", "Cats.added.md", "two words.added.md"])
def test_a_name_without_a_kind_is_refused_before_anything_is_written(repository, name):
    (repository / "changelog.d" / name).write_text("Something.\n")
    before = (repository / "CHANGELOG.md").read_text()
    with pytest.raises(SystemExit, match=r"must be named NAME\.KIND\.md"):
        assemble_changelog.release(repository, "0.2.0", "2026-02-02")
    assert (repository / "CHANGELOG.md").read_text() == before
