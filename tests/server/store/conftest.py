"""A store in a folder of its own."""

from __future__ import annotations

import pytest

from server.store.job_store import JobStore


@pytest.fixture
async def store(tmp_path):
    store = await JobStore.open(tmp_path / "server")
    yield store
    await store.close()
