"""The list of planted bugs fits the code; whether each is caught is for `make mutate` to say."""

import ast
from dataclasses import replace
from pathlib import Path

import pytest
from mutate import ALL_MUTATIONS, planted, rot
from mutations.base import Mutation

ROOT = Path(__file__).resolve().parents[2]


def test_every_fragment_occurs_exactly_once_in_its_file() -> None:
    assert rot(ALL_MUTATIONS, ROOT) == []


def test_a_fragment_that_is_gone_or_ambiguous_is_told() -> None:
    gone = replace(ALL_MUTATIONS[0], name="gone", old="no such line")
    ambiguous = replace(ALL_MUTATIONS[0], name="ambiguous", old="import")
    nowhere = replace(ALL_MUTATIONS[0], name="nowhere", file="engine/no_such_file.py")
    complaints = rot([gone, ambiguous, nowhere], ROOT)
    assert [complaint.split(":")[0] for complaint in complaints] == ["gone", "ambiguous", "nowhere"]
    assert complaints[0].endswith("'no such line' occurs 0 times in engine/noise.py")


@pytest.mark.parametrize("mutation", ALL_MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_planted_bug_is_python_and_changes_the_code(mutation: Mutation) -> None:
    source = (ROOT / mutation.file).read_text(encoding="utf-8")
    assert planted(mutation, source) != source
    compile(planted(mutation, source), mutation.file, "exec")


def test_no_two_bugs_share_a_name() -> None:
    """`--only` could not tell them apart."""
    names = [mutation.name for mutation in ALL_MUTATIONS]
    assert len(set(names)) == len(names)


def test_every_named_test_exists() -> None:
    """As a whole test: the ids of single cases change with every case that is added."""
    named = {tuple(mutation.test.split("::")) for mutation in ALL_MUTATIONS}
    existing = {
        (file, definition.name)
        for file in {file for file, _ in named}
        for definition in ast.parse((ROOT / file).read_text(encoding="utf-8")).body
        if isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert named <= existing, named - existing
