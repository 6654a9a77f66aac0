"""A model is converted in a process of its own: what it says is logged, and however it ends, the engine goes on."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import sys
from pathlib import Path

import pytest

from engine.backends import conversion_process
from engine.backends.conversion_process import ConversionError, ConversionProcess, is_first_start
from engine.errors import ModelLoadError


def process(script: str) -> ConversionProcess:
    return ConversionProcess(Path("model"), Path("cache"), program=(sys.executable, "-c", script))


def test_what_it_says_is_logged_with_its_level_and_counts_as_progress(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "engine")
    lines: list[None] = []
    script = "print('INFO compiling', flush=True); print('DEBUG step'); print('noise'); print('WARNING no room')"
    process(script).wait(lambda: lines.append(None))
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("INFO", "compiling"),
        ("WARNING", "no room"),
    ]
    assert len(lines) == 4


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("import os; os.abort()", r"ended by signal 6 \(SIGABRT\)"),
        ("import os; os.kill(os.getpid(), 9)", r"ended by signal 9 \(SIGKILL\)"),
        ("raise SystemExit(1)", "ended by exit code 1"),
        ("print('INFO begun', flush=True); import time; time.sleep(600)", "did not respond for 1 s"),
    ],
)
def test_a_crash_or_a_hang_is_told_and_leaves_no_process(script: str, reason: str):
    begun = process(script)
    with pytest.raises(ConversionError, match=reason):
        begun.wait(max_silence_s=1)
    with pytest.raises(ProcessLookupError):
        os.kill(begun.pid, 0)


def test_a_model_that_cannot_be_served_is_refused_with_its_reason():
    script = f"print('ERROR unet/config.json is damaged'); raise SystemExit({conversion_process.REFUSED})"
    with pytest.raises(ModelLoadError, match=r"^unet/config.json is damaged$"):
        process(script).wait()


def test_it_ends_when_the_engine_does():
    """Its end of the line is closed with the engine, however that ends."""
    begun = process("from engine.models.convert import _end_with_the_engine as end; end()")
    assert begun._process.stdin is not None
    begun._process.stdin.close()
    assert begun._process.wait(60) == 1


@pytest.mark.parametrize(
    ("wanted", "device", "dtype", "torch", "is_first"),
    [
        ("auto", "cpu", "auto", "2.13.0", True),
        ("openvino", "auto", "float32", "2.13.0+cpu", True),
        ("auto", "auto", "auto", "2.13.0+cu126", False),
        ("auto", "cuda", "auto", "2.13.0+cpu", False),
        ("auto", "cpu", "bfloat16", "2.13.0+cpu", False),
        ("torch", "cpu", "auto", "2.13.0+cpu", False),
    ],
)
def test_a_first_start_is_known_before_torch_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str, device: str, dtype: str, torch: str, is_first
):
    monkeypatch.setattr(importlib.metadata, "version", lambda _: torch)
    monkeypatch.setattr(conversion_process.importlib.util, "find_spec", lambda _: object())
    assert is_first_start(wanted, device, dtype, tmp_path) is is_first
    assert not is_first_start(wanted, device, dtype, None)
    (tmp_path / "openvino").mkdir()
    (tmp_path / "openvino" / "1.compiled").touch()
    assert not is_first_start(wanted, device, dtype, tmp_path)
