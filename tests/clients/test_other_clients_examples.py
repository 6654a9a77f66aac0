"""Each program in `examples/other_clients` draws as it stands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples" / "other_clients"
PRINTED = {
    "openai_sdk.py": "cat.png: 512x512",
    "webui.py": "a cat on a mat\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Karras",
    "hugging_face.py": "cat.png is there",
}
KEY = "k" * 40


@pytest.fixture(scope="module")
def locked(module_serve):
    return module_serve(api_key=KEY)


@pytest.mark.parametrize("name", PRINTED)
def test_an_example_draws_as_it_stands(locked, tmp_path, name):
    environment = {**os.environ, "SEMANTIC_BIT_URL": locked.url, "SEMANTIC_BIT_KEY": KEY, "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, str(EXAMPLES / name)]
    finished = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, check=False, text=True, timeout=60
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith(PRINTED[name])
    assert (tmp_path / "cat.png").read_bytes().startswith(b"\x89PNG")


def test_every_example_is_tried_here():
    assert {path.name for path in EXAMPLES.glob("*.py")} == PRINTED.keys()
