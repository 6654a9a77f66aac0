"""The blocking half of the client is made from the asyncio half."""

from __future__ import annotations

import generate_sync_client
import pytest


def test_the_blocking_half_is_what_the_asyncio_half_makes():
    assert generate_sync_client.main(["--check"]) == 0


def test_a_change_of_one_half_alone_is_seen(tmp_path, monkeypatch, capsys):
    by_hand = tmp_path / "client.py"
    by_hand.write_text(generate_sync_client.TARGET.read_text().replace("3.0", "4.0", 1))
    monkeypatch.setattr(generate_sync_client, "TARGET", by_hand)
    assert generate_sync_client.main(["--check"]) == 1
    assert "run python scripts/generate_sync_client.py" in capsys.readouterr().out
    assert generate_sync_client.main([]) == 0
    assert by_hand.read_text() == generate_sync_client.sync_source(generate_sync_client.SOURCE.read_text())


def test_nothing_of_asyncio_is_left():
    sync = generate_sync_client.sync_source(generate_sync_client.SOURCE.read_text())
    assert not [word for word in ("await", "Async", "asyncio", "aclos", "aiter") if word in sync]


def test_a_sentence_that_is_gone_is_named():
    with pytest.raises(ValueError, match="Tasks of one event loop"):
        generate_sync_client.sync_source(generate_sync_client.SOURCE.read_text().replace("Tasks of one", "Tasks of an"))
