"""A client of the server that all tests share."""

from __future__ import annotations

import pytest
from semantic_bit_client import Client


@pytest.fixture(scope="module")
def client(server):
    with Client(server.url) as client:
        yield client
