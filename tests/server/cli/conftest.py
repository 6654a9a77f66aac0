"""A stopped server with jobs, its backup, and a folder to restore to."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from server.cli.arguments import main
from tests.server.cli.backups import fill


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """DATA_DIR/server of a stopped server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    asyncio.run(fill(tmp_path / "data" / "server"))
    return tmp_path / "data" / "server"


@pytest.fixture
def archive(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["backup", "backup.tar"]) == 0
    capsys.readouterr()
    return tmp_path / "backup.tar"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another DATA_DIR/server, not made yet; the one that commands work on from now on."""
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "elsewhere"))
    return tmp_path / "elsewhere" / "server"
