"""`python -m server doctor`: each fault is found and says what to do, a sound machine passes, nothing is changed."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from server.access.operator_socket import OperatorSocket
from server.cli.arguments import main
from server.cli.doctor.configuration import look_at_configuration
from server.cli.doctor.data import look_at_data
from server.cli.doctor.gpu import Gpu, TorchBuild, judge_gpu
from server.cli.doctor.machine import available_memory_bytes, look_at_clock, look_at_sqlite
from server.cli.doctor.model import fault_of_safetensors, look_at_model
from server.cli.doctor.network import look_at_port
from server.store.job_store import JobStore
from tests.processes import REPOSITORY

GPU = Gpu("NVIDIA GeForce RTX 4070 SUPER", "576.80", "12282 MiB")
NEW_GPU = Gpu("NVIDIA H100", "580.65.06", "81559 MiB")
CUDA_13, CUDA_12, CPU = TorchBuild("2.13.0", "13.0"), TorchBuild("2.9.1", "12.8"), TorchBuild("2.13.0+cpu", None)
MIB = 2**20


def levels(findings) -> dict[str, str]:
    return {finding.check: finding.level for finding in findings}


# --- the whole command ------------------------------------------------------------------------------------------------


def doctor(folder: Path, *options: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "DATA_DIR": str(folder / "data"),
        "PORT": "0",
        **settings,
    }
    return subprocess.run(
        [sys.executable, "-m", "server", "doctor", *options],
        cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_a_sound_machine_passes_in_less_than_five_seconds(tmp_path):
    began = time.monotonic()
    ended = doctor(tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    if shutil.which("nvidia-smi") is None:
        assert time.monotonic() - began < 5.0
    looked_at = [line.split()[1] for line in ended.stdout.splitlines() if not line.startswith(" ")]
    assert looked_at == [
        ".env",
        "machine",
        "clock",
        "sqlite",
        "torch",
        "gpu",
        "model",
        "data",
        "disk",
        "keys",
        "tls",
        "port",
    ]
    assert list(tmp_path.iterdir()) == []


def test_a_fault_is_exit_code_1_and_json_tells_the_same(tmp_path):
    ended = doctor(tmp_path, "--json", MODEL_ID="nobody/nothing")
    assert ended.returncode == 1
    told = json.loads(ended.stdout)
    assert told["ok"] is False
    [model] = [finding for finding in told["findings"] if finding["check"] == "model"]
    assert model["level"] == "FAIL"
    assert "python scripts/download_model.py nobody/nothing" in model["found"]


def test_a_wrong_setting_does_not_keep_it_from_looking_at_the_machine(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PORT", "http")
    assert main(["doctor"]) == 1
    told = capsys.readouterr().out
    assert "FAIL  settings    PORT must be an integer, not 'http'" in told
    assert "sqlite" in told


# --- .env -------------------------------------------------------------------------------------------------------------


def test_a_misspelt_name_is_told_and_no_value_ever_is(tmp_path):
    env_file = tmp_path / ".env"
    env_file.write_text("MODELL_ID=hunter2\nOTHER_PROGRAMS_TOKEN=hunter3\n")
    [finding] = look_at_configuration(env_file)
    assert (finding.level, finding.found, finding.remedy) == (
        "warn",
        "MODELL_ID is not a setting",
        "did you mean MODEL_ID?",
    )


def test_an_env_file_that_others_can_change_is_told(tmp_path):
    env_file = tmp_path / ".env"
    env_file.touch()
    assert levels(look_at_configuration(env_file)) == {".env": "ok"}
    env_file.chmod(0o666)
    [finding] = look_at_configuration(env_file)
    assert finding.remedy == "chmod go-w .env"


def test_an_env_file_with_a_key_that_others_can_read_is_told(tmp_path):
    env_file = tmp_path / ".env"
    env_file.write_text("API_KEY=0123456789abcdef0123456789abcdef\n")
    env_file.chmod(0o644)
    [finding] = look_at_configuration(env_file)
    assert (finding.level, finding.remedy) == ("warn", "chmod 600 .env")
    assert "0123" not in finding.as_text()
    env_file.chmod(0o600)
    assert levels(look_at_configuration(env_file)) == {".env": "ok"}


# --- machine ----------------------------------------------------------------------------------------------------------


def test_a_containers_limit_is_its_memory(tmp_path):
    meminfo, limit = tmp_path / "meminfo", tmp_path / "memory.max"
    meminfo.write_text("MemTotal:  2000 kB\nMemAvailable:  1000 kB\n")
    assert available_memory_bytes(meminfo, limit) == 1_024_000
    limit.write_text("4096\n")
    assert available_memory_bytes(meminfo, limit) == 4096
    limit.write_text("max\n")
    assert available_memory_bytes(meminfo, limit) == 1_024_000


def test_a_clock_that_runs_before_the_program_was_installed_is_told():
    assert look_at_clock(time.time()).level == "ok"
    assert look_at_clock(0.0).found == "1970-01-01 00:00:00 UTC is before this program was installed"


@pytest.mark.parametrize(("version", "level"), [((3, 36, 0), "FAIL"), ((3, 37, 0), "ok"), ((3, 51, 3), "ok")])
def test_a_sqlite_that_is_too_old_is_refused(version, level):
    assert look_at_sqlite(version).level == level


# --- GPU --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpus", "torch", "device", "level", "words"),
    [
        ([], CPU, "auto", "ok", "drawn on the CPU"),
        ([], CUDA_13, "cuda", "FAIL", "DEVICE=cuda, but nvidia-smi finds no GPU"),
        ([GPU], CUDA_13, "auto", "warn", "driver 576.80 is too old for torch 2.13.0, whose CUDA 13.0 needs 580"),
        ([GPU], CUDA_13, "cuda:0", "FAIL", "driver 576.80 is too old"),
        ([GPU], CPU, "auto", "warn", "is built for the CPU"),
        ([GPU], CUDA_13, "cpu", "ok", "not used, as DEVICE=cpu"),
    ],
)
def test_a_gpu_that_cannot_be_used_is_told_with_driver_and_remedy(gpus, torch, device, level, words):
    finding = judge_gpu(gpus, torch, device)
    assert finding.level == level
    assert words in finding.found
    assert (finding.remedy is None) == (level == "ok")


@pytest.mark.parametrize(("gpu", "torch"), [(GPU, CUDA_12), (NEW_GPU, CUDA_13), (NEW_GPU, CUDA_12)])
def test_a_gpu_whose_driver_fits_is_left_to_torch_to_judge(gpu, torch):
    assert judge_gpu([gpu], torch, "auto") is None


# --- model ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    header = json.dumps({"__metadata__": {}, "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    return path


def test_a_whole_weights_file_has_no_fault(weights):
    assert fault_of_safetensors(weights) is None


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda whole: whole[:-1], "is damaged: it has"),
        (lambda whole: whole + b"x", "is damaged: it has"),
        (lambda whole: b"", "its header cannot be read"),
        (lambda whole: whole[:8] + b"x" + whole[9:], "its header cannot be read"),
        (lambda whole: (2).to_bytes(8, "little") + b"[]" + whole, "its header cannot be read"),
        (lambda whole: b"version https://git-lfs.github.com/spec/v1\n", "is not a safetensors file"),
    ],
    ids=["short", "long", "empty", "no JSON", "no object", "LFS pointer"],
)
def test_a_damaged_weights_file_is_told(weights, damage, words):
    weights.write_bytes(damage(weights.read_bytes()))
    assert words in fault_of_safetensors(weights)


def test_a_model_whose_file_is_cut_off_names_the_file(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(REPOSITORY / "models" / "dreamlet", folder)
    assert levels(look_at_model(str(folder))) == {"model": "ok"}
    cut = folder / "vae" / "diffusion_pytorch_model.safetensors"
    cut.write_bytes(cut.read_bytes()[:-1])
    [finding] = look_at_model(str(folder))
    assert finding.level == "FAIL"
    assert finding.found.startswith("vae/diffusion_pytorch_model.safetensors is damaged")


# --- data -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`DATA_DIR/server` of a server that has ended well."""
    folder = tmp_path / "server"

    async def make() -> None:
        await (await JobStore.open(folder)).close()

    asyncio.run(make())
    return folder


def test_a_sound_store_passes_and_is_left_as_it_was(folder):
    def contents() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    before = contents()
    assert levels(look_at_data(folder, MIB)) == {"data": "ok", "disk": "ok", "rights": "ok", "store": "ok"}
    assert contents() == before


def test_the_log_of_a_killed_server_is_read_and_kept(folder):
    with sqlite3.connect(folder / "jobs.sqlite3", isolation_level=None) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("UPDATE write_probe SET num_probes = 7")
        killed = folder.parent / "killed"
        shutil.copytree(folder, killed)
    connection.close()
    killed.chmod(0o700)
    before = (killed / "jobs.sqlite3-wal").read_bytes()
    assert before
    assert levels(look_at_data(killed, MIB))["store"] == "ok"
    assert (killed / "jobs.sqlite3-wal").read_bytes() == before


@pytest.mark.parametrize("junk", [b"no database at all" * 100, b"SQLite format 3\0" + bytes(5000)])
def test_a_damaged_store_is_told(folder, junk):
    (folder / "jobs.sqlite3").write_bytes(junk)
    findings = {finding.check: finding for finding in look_at_data(folder, MIB)}
    assert findings["store"].level == "FAIL"
    assert findings["store"].remedy == "restore a backup, or move it away to start with an empty store"


def test_a_store_that_is_open_is_left_alone(folder):
    async def look() -> dict[str, str]:
        store = await JobStore.open(folder)
        try:
            found = await asyncio.to_thread(lambda: list(look_at_data(folder, MIB)))
        finally:
            await store.close()
        return {finding.check: finding.found for finding in found}

    assert asyncio.run(look())["store"].endswith("has it open and checked it at its start")


def test_a_folder_that_others_can_look_into_is_told(folder):
    folder.chmod(0o755)
    assert levels(look_at_data(folder, MIB))["rights"] == "warn"


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    assert levels(look_at_data(tmp_path / "file" / "server", MIB)) == {"data": "FAIL", "disk": "ok"}


def test_a_disk_with_less_room_than_kept_pictures_may_take_is_told(tmp_path):
    assert levels(look_at_data(tmp_path / "server", 2**62)) == {"data": "ok", "disk": "warn"}
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(10**9, 10**9, 0))
    assert levels(look_at_data(tmp_path / "server", MIB))["disk"] == "FAIL"


@pytest.mark.parametrize(("kind", "level"), [("nfs4", "warn"), ("9p", "warn"), ("ext4", "ok"), ("overlay", "ok")])
def test_a_network_file_system_is_reported(tmp_path, kind, level):
    mounts = tmp_path / "mounts"
    mounts.write_text(f"none / tmpfs rw 0 0\nhost:/x {tmp_path} {kind} rw 0 0\nnone /else nfs rw 0 0\n")
    assert levels(look_at_data(tmp_path / "server", MIB, mounts=mounts))["disk"] == level


# --- port -------------------------------------------------------------------------------------------------------------


def test_a_port_that_is_free_taken_or_not_allowed(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        [finding] = look_at_port("127.0.0.1", port, tmp_path)
        assert finding.level == "FAIL"
        assert finding.remedy == "set PORT to another port, or end the program that listens there"
    assert levels(look_at_port("127.0.0.1", port, tmp_path)) == {"port": "ok"}


def test_a_server_that_hangs_is_reported(tmp_path):
    hanging = OperatorSocket(tmp_path)
    with hanging.listener as listener:
        listener.listen()
        hanging.publish()
        findings = {finding.check: finding for finding in look_at_port("127.0.0.1", 0, tmp_path, timeout_s=0.05)}
    assert findings["server"].level == "warn"
    assert "does not respond" in findings["server"].found
