import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from offline_bundle import main, names_in_freeze, platform_and_older


def test_what_is_collected_here_installs_there_without_a_network(
    tmp_path: Path, bare_venv: Path, offline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text("tiny==1.0\n")
    bundle, venv = tmp_path / "a bundle", tmp_path / "host"
    shutil.copytree(bare_venv, venv, symlinks=True)
    assert main(["collect", str(bundle), "--lock", str(lock), "--python", "3.12"]) == 0

    monkeypatch.setenv("PIP_FIND_LINKS", "")  # the host has the bundle and nothing else
    assert main(["install", str(bundle), "--venv", str(venv)]) == 0
    told = subprocess.check_output([venv / "bin/python", "-c", "import tiny; print(tiny.WHAT)"], text=True)
    assert told == "tiny\n"


def test_what_the_host_has_is_not_collected(tmp_path: Path, offline: None) -> None:
    lock, freeze = tmp_path / "lock.txt", tmp_path / "host.txt"
    lock.write_text("tiny==1.0\n")
    freeze.write_text("Tiny==0.9\n")
    with pytest.raises(SystemExit, match="nothing is left"):
        main(["collect", str(tmp_path / "bundle"), "--lock", str(lock), "--exclude-listed", str(freeze)])


def test_excluding_what_is_not_there_is_a_mistake_that_is_told(tmp_path: Path, offline: None) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text("tiny==1.0\n")
    with pytest.raises(SystemExit, match="tinny"):
        main(["collect", str(tmp_path / "bundle"), "--lock", str(lock), "--exclude", "tinny"])


def test_a_freeze_is_read_however_the_names_are_spelt() -> None:
    freeze = "# comment\nHuggingFace_Hub==1.0\ntorch @ file:///wheels/torch.whl\n-e git+ssh://x/y#egg=Some.Thing\n"
    assert names_in_freeze(freeze) == {"huggingface-hub", "torch", "some-thing"}


def test_a_platform_stands_for_the_older_ones_too() -> None:
    platforms = platform_and_older("manylinux_2_19_x86_64")
    assert {"manylinux_2_19_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"} <= set(platforms)
    assert "manylinux_2_20_x86_64" not in platforms
    assert platform_and_older("macosx_14_0_arm64") == ["macosx_14_0_arm64"]


def test_the_tool_says_how_it_is_used() -> None:
    script = Path(__file__).resolve().parents[2] / "scripts/offline_bundle.py"
    told = subprocess.check_output([sys.executable, script, "--help"], text=True)
    assert "collect" in told
    assert "install" in told
