"""The tests of states, ledger and dying workers once more, on a real PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.processes import REPOSITORY
from tests.site.services import find_postgres, postgres

SAME_TESTS = ("test_states.py", "test_ledger.py", "test_killed_worker.py", "test_text.py")


@pytest.mark.skipif(find_postgres() is None, reason="PostgreSQL is not installed (apt-get install postgresql)")
def test_states_and_ledger_hold_on_postgresql():
    with postgres() as url:
        finished = subprocess.run(  # noqa: PLW1510 -- what it printed is shown
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                *(f"tests/site/{name}" for name in SAME_TESTS),
            ],
            cwd=REPOSITORY,
            env={**os.environ, "TEST_DATABASE_URL": url},
            capture_output=True,
            text=True,
            timeout=400,
        )
    assert finished.returncode == 0, finished.stdout[-4000:] + finished.stderr[-2000:]
    assert " passed" in finished.stdout
