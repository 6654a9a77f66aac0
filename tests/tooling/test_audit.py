"""The audit of the lock files passes only where something was really looked up."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import audit
import pytest


class Programs:
    """pip and pip-audit, as they would answer."""

    def __init__(self, *, advisories: str, errors: str = "", withdrawn: bool = False, index: bool = True) -> None:
        self._advisories, self._errors = advisories, errors
        self._withdrawn, self._index = withdrawn, index

    def __call__(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        if "pip_audit" in command:
            return subprocess.CompletedProcess(command, 0, self._advisories, self._errors)
        if "check" in command:
            return subprocess.CompletedProcess(command, 0, "No broken requirements found.\n", "")
        if not self._index:
            return subprocess.CompletedProcess(command, 1, "", "no matching distribution")
        package = {"metadata": {"name": "tiny", "version": "1.0"}, "is_yanked": self._withdrawn}
        Path(command[command.index("--report") + 1]).write_text(json.dumps({"install": [package]}))
        return subprocess.CompletedProcess(command, 0, "", "")


def answer(**package: object) -> str:
    return json.dumps({"dependencies": [{"name": "tiny", "version": "1.0", **package}], "fixes": []})


CLEAN = answer(vulns=[])
UNKNOWN = json.dumps({"dependencies": [{"name": "tiny", "skip_reason": "not found and could not be audited"}]})
VULNERABLE = answer(vulns=[{"id": "CVE-2026-1", "fix_versions": ["1.1"], "aliases": [], "description": ""}])


def test_what_was_looked_up_and_is_well_passes(capsys):
    assert audit.main(Programs(advisories=CLEAN)) == 0
    told = capsys.readouterr().out
    assert told.count("1 packages looked up") == len(audit.LOCKS)
    assert all(line.startswith("ok") for line in told.splitlines())


def test_a_known_fault_is_told_with_its_remedy(capsys):
    assert audit.main(Programs(advisories=VULNERABLE)) == audit.FAULTS
    assert "requirements.lock.txt: tiny 1.0: CVE-2026-1, fixed in 1.1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("advisories", "errors"),
    [(UNKNOWN, ""), ("", "Traceback\nConnectionError: name not known"), (json.dumps({"dependencies": []}), "")],
    ids=["a mirror that knows nothing", "no network", "an empty answer"],
)
def test_an_audit_that_could_not_look_does_not_pass_in_silence(capsys, advisories, errors):
    assert audit.main(Programs(advisories=advisories, errors=errors)) == audit.NOT_AUDITED
    assert capsys.readouterr().out.count("NOT AUDITED requirements") == len(audit.LOCKS)


def test_a_withdrawn_release_is_a_fault(capsys):
    assert audit.main(Programs(advisories=CLEAN, withdrawn=True)) == audit.FAULTS
    assert "tiny 1.0 was withdrawn by its makers" in capsys.readouterr().out


def test_without_a_package_index_it_says_so(capsys):
    assert audit.main(Programs(advisories=CLEAN, index=False)) == audit.NOT_AUDITED


def test_a_release_below_the_safe_one_is_a_fault(capsys, monkeypatch):
    monkeypatch.setattr(audit, "SAFE_FROM", {"torch": ("99.0", "that is what the test says")})
    assert audit.main(Programs(advisories=CLEAN)) == audit.FAULTS
    assert "is older than 99.0: that is what the test says" in capsys.readouterr().out


def test_a_licence_that_binds_those_who_only_offer_the_server_is_a_fault(capsys, monkeypatch):
    class Metadata(dict):
        def get_all(self, name):
            return ["License :: OSI Approved :: GNU Affero General Public License v3"] if name == "Classifier" else None

    monkeypatch.setattr(audit.importlib.metadata, "metadata", lambda _name: Metadata())
    assert audit.main(Programs(advisories=CLEAN)) == audit.FAULTS
