"""Compiled networks on disk: whole or not at all, bounded, and never in the way of drawing."""

from __future__ import annotations

import errno
import logging
import os
import tempfile
import time
from pathlib import Path

import pytest

from engine.backends.compiled_cache import CompiledCache

HOUR_S = 3600


def written(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def aged(path: Path, hours: float) -> None:
    then = time.time() - hours * HOUR_S
    os.utime(path, (then, then))


def test_what_was_written_is_read_by_another_process(tmp_path: Path):
    CompiledCache(tmp_path).write("origin", memoryview(b"a network"))
    found = CompiledCache(tmp_path).read("origin")
    assert found is not None
    assert bytes(found) == b"a network"
    assert CompiledCache(tmp_path).read("another origin") is None


def test_a_file_under_the_name_of_another_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    cache = CompiledCache(tmp_path)
    cache.write("one", memoryview(b"a network"))
    one = tmp_path / written(tmp_path)[0]
    cache.write("two", memoryview(b"another"))
    two = next(path for path in tmp_path.iterdir() if path != one)
    one.replace(two)
    assert cache.read("two") is None
    assert "damaged" in caplog.text


def test_what_was_used_longest_ago_is_deleted_first_and_nothing_that_is_in_use(tmp_path: Path):
    for hours, origin in ((3, "oldest"), (2, "older"), (1, "old")):
        CompiledCache(tmp_path).write(origin, memoryview(bytes(1000)))
        for path in tmp_path.iterdir():
            if path.stat().st_mtime > time.time() - HOUR_S / 2:
                aged(path, hours)
    left_over = tmp_path / ".unfinished-killed"
    left_over.write_bytes(bytes(1000))
    aged(left_over, 5)
    cache = CompiledCache(tmp_path, max_bytes=3500)
    assert cache.read("oldest") is not None
    aged(next(path for path in tmp_path.iterdir() if path.stat().st_mtime > time.time() - HOUR_S / 2), 9)
    cache.write("new", memoryview(bytes(1000)))
    assert not left_over.exists()
    assert {
        origin: CompiledCache(tmp_path).read(origin) is not None for origin in ("oldest", "older", "old", "new")
    } == {
        "oldest": True,
        "older": False,
        "old": True,
        "new": True,
    }


def test_a_network_larger_than_the_limit_stays_while_it_is_used(tmp_path: Path):
    cache = CompiledCache(tmp_path, max_bytes=10)
    cache.write("one", memoryview(bytes(100)))
    cache.write("two", memoryview(bytes(100)))
    assert len(written(tmp_path)) == 2
    CompiledCache(tmp_path, max_bytes=10).write("three", memoryview(bytes(100)))
    assert len(written(tmp_path)) == 1


def test_a_full_disk_is_logged_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def on_a_full_disk(prefix: str, dir: Path) -> tuple[int, str]:  # noqa: A002 - its own name
        (dir / prefix).touch()
        return os.open("/dev/full", os.O_WRONLY), str(dir / prefix)

    monkeypatch.setattr(tempfile, "mkstemp", on_a_full_disk)
    CompiledCache(tmp_path / "cache").write("origin", memoryview(bytes(100_000)))
    assert os.strerror(errno.ENOSPC) in caplog.text
    assert written(tmp_path / "cache") == []


def test_a_folder_that_cannot_be_written_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "cache").write_text("a file")
    cache = CompiledCache(tmp_path / "cache")
    caplog.set_level(logging.WARNING)
    assert cache.read("origin") is None
    cache.write("origin", memoryview(b"a network"))
    assert "cannot be kept" in caplog.text
    weights = tmp_path / "weights"
    weights.write_text("weights")
    assert len(cache.digest_of(weights)) == 64


def test_the_digest_of_weights_is_remembered_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    weights = tmp_path / "weights"
    weights.write_bytes(b"first")
    monkeypatch.setattr("engine.backends.compiled_cache._SETTLED_NS", 0)
    cache = CompiledCache(tmp_path / "cache")
    first = cache.digest_of(weights)
    with monkeypatch.context() as patch:
        patch.setattr("hashlib.file_digest", lambda *_: pytest.fail("the file is read again"))
        assert CompiledCache(tmp_path / "cache").digest_of(weights) == first
    times = weights.stat()
    weights.write_bytes(b"other")
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert cache.digest_of(weights) != first


def test_a_file_that_has_just_been_written_is_not_remembered(tmp_path: Path):
    """It may change once more within one tick of the file system's clock, and would look the same."""
    weights = tmp_path / "weights"
    weights.write_bytes(b"first")
    CompiledCache(tmp_path / "cache").digest_of(weights)
    assert not (tmp_path / "cache").exists()
