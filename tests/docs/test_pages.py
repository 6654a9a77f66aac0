"""The pages are true: what they name exists, what they link to is there, what they list is complete."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
IGNORED = [
    line.rstrip("/") for line in (REPOSITORY / ".gitignore").read_text().splitlines() if line and line[0] not in "#!"
]
README = (REPOSITORY / "README.md").read_text()

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", flags=re.MULTILINE)
CODE_BLOCK = re.compile(r"^```.*?^```$", flags=re.MULTILINE | re.DOTALL)


def is_ignored(path: Path) -> bool:
    return any(fnmatch(part, pattern) for part in path.parts for pattern in [*IGNORED, ".git"])


PAGES = sorted(path for path in REPOSITORY.rglob("*.md") if not is_ignored(path.relative_to(REPOSITORY)))


def prose(page: Path) -> str:
    return CODE_BLOCK.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """What a heading can be linked to as: lower case, without punctuation, spaces as hyphens."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in HEADING.findall(prose(page))
    }


def tree() -> list[str]:
    """Every path of the README's tree, folders with a slash at the end."""
    [block] = [block for block in CODE_BLOCK.findall(README) if "\nREADME.md " in block]
    paths: list[str] = []
    folder = ""
    for line in block.splitlines()[1:-1]:
        names = re.split(r" {2,}", line.strip())[0].split(", ")
        if line.startswith("  "):
            paths += [folder + name for name in names]
        else:
            [folder] = names
            paths.append(folder)
    return paths


@pytest.mark.parametrize("path", tree())
def test_what_the_tree_names_exists(path):
    found = REPOSITORY / path
    assert found.is_dir() if path.endswith("/") else found.is_file()


def test_the_tree_names_every_folder_and_file_of_the_top():
    named = {Path(path).parts[0] for path in tree()}
    there = {
        path.name for path in REPOSITORY.iterdir() if not path.name.startswith(".") and any(files_worth_keeping(path))
    }
    assert there <= named


@pytest.mark.parametrize("folder", sorted({f"{Path(path).parent}/" for path in tree()} - {"./", ".ci/", "models/"}))
def test_a_folder_that_the_tree_opens_is_shown_whole(folder):
    unsaid = {"__init__.py", "__main__.py", "manage.py", "py.typed"}  # what every package of its kind has
    named = {path.rstrip("/") for path in tree()}
    there = {
        path for path in (REPOSITORY / folder).iterdir() if path.name not in unsaid and any(files_worth_keeping(path))
    }
    assert not {path.relative_to(REPOSITORY).as_posix() for path in there} - named


def files_worth_keeping(path: Path) -> Iterator[Path]:
    """What git would keep: no empty folders, nothing that is ignored."""
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file() and not is_ignored(file.relative_to(REPOSITORY)):
            yield file


def test_every_line_of_the_tree_says_what_is_there():
    [block] = [block for block in CODE_BLOCK.findall(README) if "\nREADME.md " in block]
    assert all(len(line.split(maxsplit=1)) == 2 for line in block.splitlines()[1:-1])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_relative_link_leads_somewhere(page):
    for link in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_listed_in_the_index():
    listed = set(LINK.findall((REPOSITORY / "docs" / "README.md").read_text()))
    pages = {path.name for path in (REPOSITORY / "docs").glob("*.md")} - {"README.md"}
    assert pages <= listed


def test_every_decision_is_listed_and_numbered_in_order():
    folder = REPOSITORY / "docs" / "adr"
    decisions = sorted(path.name for path in folder.glob("*.md") if path.name != "README.md")
    listed = re.findall(r"^\| \[(\d+)\]\(([^)]+)\) \| (.*) \|$", (folder / "README.md").read_text(), flags=re.MULTILINE)
    assert [name for _, name, _ in listed] == decisions
    for number, (shown, name, decision) in enumerate(listed, start=1):
        assert shown == str(number)
        assert name.startswith(f"{number:04d}-")
        assert (folder / name).read_text().splitlines()[0] == f"# {number}. {decision}"


@pytest.mark.parametrize("page", sorted((REPOSITORY / "docs" / "adr").glob("0*.md")), ids=lambda page: page.stem)
def test_a_decision_is_short_and_says_how_to_undo_it(page):
    text = page.read_text()
    assert len(text.splitlines()) <= 40
    parts = [text.index(f"**{part}.**") for part in ("Context", "Decision", "Consequences", "To undo it")]
    assert parts == sorted(parts)


def test_the_drawing_can_be_read_in_light_and_dark():
    drawing = (REPOSITORY / "docs" / "images" / "architecture.svg").read_text()
    assert "prefers-color-scheme: dark" in drawing
    assert '<rect class="page"' in drawing, "it brings its own background, so it is readable on any page"


def test_what_the_drawing_and_the_tables_call_code_is_there():
    """A module that is renamed is renamed in the architecture page too."""
    page = (REPOSITORY / "docs" / "architecture.md").read_text()
    named = set(re.findall(r"`((?:engine|server|tests)/[\w/.]+)`", page))
    assert len(named) > 15
    assert not [path for path in sorted(named) if not (REPOSITORY / path).exists()]
