"""Which backend runs the networks."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from engine.backends.choice import choose_backend
from engine.backends.cores import usable_cores
from engine.errors import ModelLoadError

CPU = torch.device("cpu")
HAS_OPENVINO = importlib.util.find_spec("openvino") is not None


@pytest.fixture(autouse=True)
def threads_as_before():
    before = torch.get_num_threads()
    torch.set_num_threads(max(2, before))
    yield
    torch.set_num_threads(before)


@pytest.mark.skipif(not HAS_OPENVINO, reason="the package openvino is not installed")
@pytest.mark.parametrize("wanted", ["auto", "openvino"])
def test_a_cpu_in_float32_has_openvino(wanted: str, tmp_path: Path):
    backend = choose_backend(wanted, CPU, torch.float32, tmp_path)
    assert (backend.name, backend.num_threads) == ("openvino", min(2, usable_cores()))


@pytest.mark.parametrize(
    ("wanted", "device", "dtype"),
    [
        ("torch", "cpu", torch.float32),
        ("auto", "cpu", torch.bfloat16),
        ("auto", "cuda", torch.float32),
        ("torch", "cuda", torch.float16),
    ],
)
def test_all_others_have_torch(wanted: str, device: str, dtype: torch.dtype):
    assert choose_backend(wanted, torch.device(device), dtype, None).name == "torch"


@pytest.mark.parametrize(
    ("device", "dtype", "message"),
    [
        ("cuda", torch.float32, "runs on CPUs only, not on cuda"),
        ("cpu", torch.bfloat16, "computes in float32 only, not in bfloat16"),
    ],
)
def test_openvino_is_refused_where_it_cannot_be_used(device: str, dtype: torch.dtype, message: str):
    with pytest.raises(ModelLoadError, match=message):
        choose_backend("openvino", torch.device(device), dtype, None)


def test_without_the_package_it_is_torch_or_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert choose_backend("auto", CPU, torch.float32, None).name == "torch"
    with pytest.raises(ModelLoadError, match="openvino is not installed"):
        choose_backend("openvino", CPU, torch.float32, None)


def test_a_library_that_does_not_load_is_logged_or_an_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.delitem(sys.modules, "engine.backends.openvino_backend", raising=False)
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    assert choose_backend("auto", CPU, torch.float32, None).name == "torch"
    assert "OpenVINO does not start here, torch runs the networks" in caplog.text
    with pytest.raises(ModelLoadError, match="OpenVINO does not start here"):
        choose_backend("openvino", CPU, torch.float32, None)
