"""What training asks of the machine it runs on."""

from dataclasses import replace

import pytest
import torch

from training.dreamlet.config import load_preset
from training.dreamlet.machine import autocast, begin, device

on_a_cpu = pytest.mark.skipif(device().type != "cpu", reason="a GPU always has bfloat16")


@pytest.fixture
def _denormals():
    """The setting is the process's, and other tests compare bytes."""
    yield
    torch.set_flush_denormal(False)


@on_a_cpu
@pytest.mark.parametrize("has_amx", [True, False])
def test_a_cpu_trains_in_bfloat16_only_where_it_is_faster_in_it(monkeypatch, has_amx):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": has_amx})
    with autocast(load_preset("cpu")):
        made = torch.nn.Linear(16, 16)(torch.ones(2, 16))
    assert made.dtype == (torch.bfloat16 if has_amx else torch.float32)


@on_a_cpu
def test_a_cpu_of_another_make_trains_in_float32(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"neon": True})
    with autocast(load_preset("cpu")):
        assert torch.nn.Linear(4, 4)(torch.ones(1, 4)).dtype == torch.float32


@on_a_cpu
def test_a_preset_can_want_float32_everywhere(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    with autocast(replace(load_preset("cpu"), precision="float32")):
        assert torch.nn.Linear(4, 4)(torch.ones(1, 4)).dtype == torch.float32


@on_a_cpu
@pytest.mark.usefixtures("_denormals")
def test_training_begins_with_tiny_numbers_as_zero():
    """For a CPU they are several times slower than others."""
    tiny = torch.tensor([1e-39])
    assert (tiny * 1).item() > 0
    begin()
    assert (tiny * 1).item() == 0
