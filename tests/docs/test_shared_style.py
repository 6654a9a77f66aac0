"""The page and the site look alike: what they share is one file, and neither says it again."""

from __future__ import annotations

import re

import pytest
from copy_shared_files import COPIES

[(ORIGINAL, COPY)] = [pair for pair in COPIES.items() if pair[0].name == "base.css"]
OWN_FILES = [ORIGINAL.with_name("app.css"), ORIGINAL.with_name("input.css"), COPY.with_name("site.css")]
PAINTER = ORIGINAL.with_name("painter.css")


def rules(text):
    """Every rule, as (selector, declarations), those of media queries without their query."""
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    found = re.findall(r"([^{}]+)\{([^{}]*)\}", text)
    return {(" ".join(selector.split()), " ".join(body.split())) for selector, body in found}


def test_the_sites_copies_are_equal():
    for original, copy in COPIES.items():
        assert copy.read_text() == original.read_text(), "run python scripts/copy_shared_files.py"


@pytest.mark.parametrize("path", [PAINTER, *OWN_FILES], ids=lambda path: path.name)
def test_nothing_shared_is_said_again(path):
    own, shared = path.read_text(), ORIGINAL.read_text()
    assert rules(own) & rules(shared) == set()
    tokens = set(re.findall(r"^ *(--[a-z]+):", shared, re.MULTILINE))
    assert len(tokens) > 15
    assert tokens & set(re.findall(r"^ *(--[a-z]+):", own, re.MULTILINE)) == set()


def test_every_token_exists():
    defined = set(re.findall(r"(--[a-z-]+):", "".join(path.read_text() for path in [ORIGINAL, PAINTER, *OWN_FILES])))
    for path in [ORIGINAL, PAINTER, *OWN_FILES]:
        used = set(re.findall(r"var\((--[a-z-]+)[,)]", path.read_text()))
        assert used <= defined | {"--at", "--filled"}, path
