"""The client alone, in an empty environment: few packages, no torch, and imported at once."""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import sys
import venv
from pathlib import Path

import pytest

CLIENT = Path(__file__).parents[2] / "client"
MOST_PACKAGES = 12
MOST_IMPORT_S = 0.3

NO_REGISTRY = re.compile(
    r"No matching distribution|NewConnectionError|ConnectionError|Temporary failure|timed out|SSLError"
)


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The interpreter of an environment that holds nothing but the client and what it asks for."""
    folder = tmp_path_factory.mktemp("alone")
    # Built from a copy: setuptools leaves its leavings beside the source.
    source = shutil.copytree(
        CLIENT, folder / "client", ignore=shutil.ignore_patterns("*.egg-info", "build", "__pycache__")
    )
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    installed = subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--disable-pip-version-check",
         "--retries", "1", "--timeout", "15", str(source)],
        capture_output=True, check=False, text=True, timeout=300,
    )  # fmt: skip
    if installed.returncode and NO_REGISTRY.search(installed.stderr):
        pytest.skip("pip cannot reach a package registry")
    assert installed.returncode == 0, installed.stderr
    return python


def output(python, *arguments):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    finished = subprocess.run(
        [str(python), *arguments], env=environment, capture_output=True, check=False, text=True, timeout=60
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_it_brings_few_packages_and_no_torch(python):
    listed = output(
        python, "-c", "from importlib.metadata import distributions as d; print(*{p.name.lower() for p in d()})"
    )
    packages = set(listed.split())
    assert {"semantic-bit-client", "httpx2", "msgspec", "stamina"} <= packages
    assert not packages & {"torch", "numpy", "fastapi", "pydantic", "semantic-bit-gpu-server"}
    assert len(packages) <= MOST_PACKAGES, packages


def test_it_is_imported_at_once(python):
    # The median tells of the client; a second and a third round, of what else the machine was doing in the first.
    program = "from time import perf_counter as now; began = now(); import semantic_bit_client; print(now() - began)"
    medians_s: list[float] = []
    while len(medians_s) < 3 and not any(median_s <= MOST_IMPORT_S for median_s in medians_s):
        medians_s.append(statistics.median(float(output(python, "-c", program)) for _ in range(9)))
    assert min(medians_s) <= MOST_IMPORT_S, medians_s
    modules = output(python, "-c", "import sys, semantic_bit_client; print(*sys.modules)").split()
    assert "asyncio" not in modules, "a third of that time, for whoever waits"


def test_the_command_and_the_types_are_there(python, server, tmp_path):
    told = output(python.parent / "dream", "a cat", "-o", str(tmp_path / "cat.png"), "--url", server.url)
    assert told.endswith(")\n")
    assert (tmp_path / "cat.png").is_file()
    folder = Path(output(python, "-c", "import semantic_bit_client as c; print(c.__path__[0])").strip())
    assert (folder / "py.typed").is_file()
    assert "site-packages" in folder.parts
