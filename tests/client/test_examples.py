"""Every example of the client works as it stands, and is short."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = REPOSITORY / "examples" / "client"
EXPECTED = {
    "one_picture.py": (r"cat\.png: seed 1, 1\.0 work units\n", {"cat.png"}),
    "watch_a_job.py": (r"((queued|running) \d+/112\n)+done 112/112\n", 4),
    "many_prompts.py": (r"\[\d+, \d+, \d+\]\n", set()),
    "when_it_fails.py": (r"\[\('width', 'must be .*', 63\)\]\n", set()),
}


def run(file, url, folder):
    environment = os.environ | {"SEMANTIC_BIT_URL": url, "PYTHONPATH": str(REPOSITORY / "client")}
    command = [sys.executable, str(file)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False, text=True, timeout=60)


@pytest.mark.parametrize("name", EXPECTED)
def test_an_example_works_as_it_stands(server, tmp_path, name):
    printed, files = EXPECTED[name]
    finished = run(EXAMPLES / name, server.url, tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert re.fullmatch(printed, finished.stdout), finished.stdout
    found = {path.name for path in tmp_path.iterdir()}
    assert len(found) == files if isinstance(files, int) else found == files


def test_every_example_is_tried_here_and_is_short():
    assert {path.name for path in EXAMPLES.glob("*.py")} == EXPECTED.keys()
    for path in EXAMPLES.glob("*.py"):
        lines = [
            line for line in path.read_text().splitlines() if line and not line.startswith(('"""', "import", "from"))
        ]
        assert len(lines) <= 10, path


def test_the_readmes_program_works_as_it_stands(server, tmp_path):
    [program] = re.findall(
        r"^```python\n(.*?)^```$", (REPOSITORY / "client" / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    file = tmp_path / "program.py"
    file.write_text(program.replace("http://127.0.0.1:8000", server.url))
    finished = run(file, server.url, tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "cat.png").is_file()
