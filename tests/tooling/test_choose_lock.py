from pathlib import Path

import pytest
from choose_lock import CUDA12_LOCK, DEFAULT_LOCK, choose_lock, find_driver


@pytest.mark.parametrize(
    ("driver", "lock", "reason"),
    [
        (None, DEFAULT_LOCK, "no NVIDIA driver"),
        ("580.65.06", DEFAULT_LOCK, "runs CUDA 13"),
        ("610.10", DEFAULT_LOCK, "runs CUDA 13"),
        ("579.99", CUDA12_LOCK, "older than 580"),
        ("576.80", CUDA12_LOCK, "older than 580"),
        ("525.60.13", CUDA12_LOCK, "older than 580"),
        ("470.256.02", DEFAULT_LOCK, "install driver 580 or newer"),
    ],
)
def test_the_driver_decides_which_lock_is_installed_and_the_reason_says_so(
    driver: str | None, lock: str, reason: str
) -> None:
    choice = choose_lock(driver)
    assert choice.lock == lock
    assert reason in choice.reason
    assert driver is None or driver in choice.reason


def _fake_nvidia_smi(folder: Path, body: str) -> Path:
    folder.mkdir()
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    return program


def test_the_kernel_module_is_asked_first(tmp_path: Path) -> None:
    module = tmp_path / "version"
    module.write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\n"
        "GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n"
    )
    assert find_driver(module) == "535.183.01"


def test_without_a_kernel_module_nvidia_smi_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fake_nvidia_smi(tmp_path / "bin", "echo 576.80; echo 576.80")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    assert find_driver(tmp_path / "none", tmp_path / "none") == "576.80"


def test_under_wsl_nvidia_smi_is_found_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = _fake_nvidia_smi(tmp_path / "lib", "echo 576.80")
    monkeypatch.setenv("PATH", "/nowhere")
    assert find_driver(tmp_path / "none", program) == "576.80"


def test_an_nvidia_smi_without_a_driver_counts_as_no_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = _fake_nvidia_smi(tmp_path / "lib", "echo NVIDIA-SMI has failed: no driver 576.80; exit 9")
    monkeypatch.setenv("PATH", "/nowhere")
    assert find_driver(tmp_path / "none", program) is None


def test_no_nvidia_at_all_is_no_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert find_driver(tmp_path / "none", tmp_path / "none") is None
