"""Where Ray is installed: `make chaos-ray` says so. Without it these tests are skipped."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.chaos.conftest import pytest_configure, pytest_terminal_summary, report
from tests.ray.cluster import Cluster, cluster

__all__ = ["pytest_configure", "pytest_terminal_summary", "report"]


@pytest.fixture(scope="session")
def ray_python() -> str:
    python = os.environ.get("RAY_PYTHON")
    if python is None:
        pytest.skip("Ray is not installed here: `make chaos-ray` installs and uses it")
    return python


@pytest.fixture(scope="module")
def running(ray_python) -> Iterator[Cluster]:
    with cluster(ray_python) as started:
        started.deploy()
        yield started
