"""The engine's start with a model that must be converted: in a process of its own, and by torch if that fails."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest
import torch

from engine.backends.conversion_process import ConversionProcess
from engine.errors import ModelLoadError
from engine.models.random_model import make_random_model
from server.executors.messages import Configure, LoadProgress
from server.worker import conversion
from server.worker.start_up import start_engine

pytest.importorskip("openvino")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch):
    """Here, where OpenVINO leaves torch no more, and in the process that converts: each number has its own networks."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny(tmp_path: Path) -> Configure:
    make_random_model(tmp_path / "tiny", seed=1)
    return Configure(
        model_id=str(tmp_path / "tiny"),
        device="cpu",
        dtype="float32",
        cache_folder=str(tmp_path / "cache"),
        warms_up_first=False,
        num_inference_steps=2,
    )


def crashing(configuration: Configure) -> ConversionProcess:
    crash = (sys.executable, "-c", "import os; os.abort()")
    return ConversionProcess(Path(configuration.model_id), Path(str(configuration.cache_folder)), program=crash)


def test_a_conversion_that_crashes_leaves_an_engine_that_draws_by_torch_and_says_why(
    tiny: Configure, caplog: pytest.LogCaptureFixture
):
    _, info = start_engine(tiny, lambda _: None, crashing(tiny))
    assert info.backend == "torch"
    assert info.warning is not None
    assert "ended by signal 6 (SIGABRT): torch runs the networks" in info.warning
    assert info.warning in caplog.messages


def test_where_openvino_alone_is_wanted_a_crash_is_an_error(tiny: Configure):
    tiny = msgspec.structs.replace(tiny, backend="openvino")
    with pytest.raises(ModelLoadError, match=r"BACKEND=openvino, but .* signal 6 .*BACKEND=auto would draw by torch"):
        start_engine(tiny, lambda _: None, crashing(tiny))


def test_a_model_is_converted_once_and_the_default_table_made_meanwhile(tiny: Configure, tmp_path: Path):
    """
    In another process on the first start, begun before torch would be imported; not at all on the second.
    """
    for is_first in (True, False):
        begun = conversion.begun_conversion(tiny)
        assert (begun is not None) is is_first
        told: list[object] = []
        _, info = start_engine(tiny, told.append, begun)
        assert (info.backend, info.warning) == ("openvino", None)
        phases = [message.phase for message in told if isinstance(message, LoadProgress)]
        assert (conversion.PHASE in phases) is is_first
    assert len(list((tmp_path / "cache" / "sampler_tables").glob("*.json"))) == 1
