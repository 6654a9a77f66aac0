"""Does every error say what an operator should do, and are all public texts and pages in plain, British English?

Whether `docs/messages.md` is up to date is checked by `scripts/texts.py --check` in `test.sh`.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from scripts import texts
from server.errors import PROBLEMS

_RIDDLING = re.compile(
    r"(?<!there )\bis no (?!longer\b)[a-z]"
    r"|\b(told|whoever|nobody|of late|lately|anew|for want of|hung up|sign of life|mend)\b",
    re.IGNORECASE,
)
_AMERICAN = re.compile(
    r"(author|recogn|initial|optim|organ)iz|cancel(ed|ing)\b|\b(color|center|gray|behavior)\b", re.IGNORECASE
)
_VALUES = re.compile(r"\{[^{}]*\}|`[^`]*`|Authorization")
"""Values, code and the header: not words of ours."""
_PAGES = sorted(
    page.relative_to(texts.ROOT)
    for pattern in (
        "README.md",
        "SECURITY.md",
        "CONTRIBUTING.md",
        "*/README.md",
        "docs/**/*.md",
        "*/dreamlet/README.md",
    )
    for page in texts.ROOT.glob(pattern)
    if not page.relative_to(texts.ROOT).parts[0].startswith((".", "var"))
)


def test_every_error_has_an_action_and_is_on_the_page():
    page = texts.markdown(tomllib.loads((texts.ROOT / texts.ACTIONS).read_text(encoding="utf-8")))
    for kind in PROBLEMS.values():
        assert f"| {kind.status} | `{kind.code}` | {kind.title} |" in page


def test_every_public_text_is_in_plain_words_and_british_spelling():
    shown = [(text.file, _VALUES.sub("", text.text)) for text in texts.texts()]
    shown += [("server/errors.py", problem.title) for problem in texts.problems()]
    assert len(shown) > 500
    assert [entry for entry in shown if _RIDDLING.search(entry[1]) or _AMERICAN.search(entry[1])] == []


@pytest.mark.parametrize("page", _PAGES, ids=str)
def test_every_page_is_in_plain_words_and_british_spelling(page: Path):
    text = re.sub(r"^```.*?^```$", "", (texts.ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    prose = " ".join(re.sub(r"\]\([^)]*\)", "]", _VALUES.sub("", text)).split())
    assert [found.group() for pattern in (_RIDDLING, _AMERICAN) for found in pattern.finditer(prose)] == []
