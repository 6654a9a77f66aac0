"""The page and the site look alike: what they share is one file, and neither says it again."""

from __future__ import annotations

import re

import pytest
from copy_base_css import COPY, ORIGINAL

OWN_FILES = [ORIGINAL.with_name("app.css"), COPY.with_name("site.css")]


def rules(text):
    """Every rule, as (selector, declarations), those of media queries without their query."""
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    found = re.findall(r"([^{}]+)\{([^{}]*)\}", text)
    return {(" ".join(selector.split()), " ".join(body.split())) for selector, body in found}


def test_the_sites_copy_is_equal():
    assert COPY.read_text() == ORIGINAL.read_text(), "run python scripts/copy_base_css.py"


@pytest.mark.parametrize("path", OWN_FILES, ids=lambda path: path.name)
def test_nothing_shared_is_said_again(path):
    own, shared = path.read_text(), ORIGINAL.read_text()
    assert rules(own) & rules(shared) == set()
    tokens = set(re.findall(r"^ *(--[a-z]+):", shared, re.MULTILINE))
    assert len(tokens) > 15
    assert tokens & set(re.findall(r"^ *(--[a-z]+):", own, re.MULTILINE)) == set()


def test_every_token_exists():
    defined = set(re.findall(r"(--[a-z-]+):", "".join(path.read_text() for path in [ORIGINAL, *OWN_FILES])))
    for path in [ORIGINAL, *OWN_FILES]:
        used = set(re.findall(r"var\((--[a-z-]+)[,)]", path.read_text()))
        assert used <= defined | {"--at", "--filled"}, path
