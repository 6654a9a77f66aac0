"""The engine's loop on a GPU that is not there: no mixed devices, no waiting in the step loop, the intended dtypes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.engine import Engine
from engine.events import EngineEvent, Failed, ImageDrawn, PreviewTaken, RanOutOfMemory, StepTaken, WorkItem
from engine.models.locate import locate
from engine.models.random_model import make_random_model
from engine.models.stable_diffusion import StableDiffusion
from engine.params import GenerationParams
from engine.warm_up import measure_rows_per_call
from tests.engine.drawing import Params, add_all
from tests.engine.rehearsed_gpu import DEVICE, RehearsedGpu, rehearsed_gpu
from tests.engine.test_pictures_in import INPUTS, mixed

CPU = torch.device("cpu")
NETWORK = {"conv2d", "convolution", "linear", "addmm", "mm", "scaled_dot_product_attention", "group_norm", "layer_norm"}


@pytest.fixture
def gpu() -> Iterator[RehearsedGpu]:
    with rehearsed_gpu() as gpu:
        yield gpu


@pytest.fixture
def wishes(params: Params) -> list[GenerationParams]:
    """Text, images, masks, canvas and hires, of samplers that draw noise and that do not, guided and not."""
    return mixed(params)


def model_on(device: torch.device, folder: Path, dtype: torch.dtype = torch.float32) -> StableDiffusion:
    return StableDiffusion.load(locate(str(folder)), device, dtype)


def drawn(model: StableDiffusion, wishes: list[GenerationParams]) -> dict[str, np.ndarray[Any, Any]]:
    """Request id -> pixels; previews are looked at as they come."""
    engine = Engine(model, rows_per_call=4)
    for index, wish in enumerate(wishes):
        engine.add(engine.prepare(str(index), wish, inputs=INPUTS, wants_previews=True))
    pictures: dict[str, np.ndarray[Any, Any]] = {}
    previews = 0
    while engine.has_work:
        for event in engine.step():
            match event:
                case Failed():
                    raise event.error
                case PreviewTaken():
                    assert event.picture.pixels().any()
                    previews += 1
                case ImageDrawn():
                    pictures[event.request_id] = event.pixels
    assert previews
    return pictures


def test_pictures_are_drawn_as_on_the_cpu(gpu: RehearsedGpu, tiny_model_folder: Path, wishes: list[GenerationParams]):
    """
    Tensors of two devices never meet, or this would fail as it would on a GPU.
    """
    on_cpu = drawn(model_on(CPU, tiny_model_folder), wishes)
    on_gpu = drawn(model_on(DEVICE, tiny_model_folder), wishes)
    assert on_cpu.keys() == on_gpu.keys()
    assert all(np.array_equal(on_gpu[name], on_cpu[name]) for name in on_cpu)
    assert len(gpu.operations) > 1000


def test_in_half_precision_the_networks_compute_in_it_and_the_update_does_not(
    gpu: RehearsedGpu, tiny_model_folder: Path, wishes: list[GenerationParams]
):
    model = model_on(DEVICE, tiny_model_folder, torch.float16)
    gpu.operations.clear()
    drawn(model, wishes)
    by_network = [operation for operation in gpu.operations if operation.name in NETWORK]
    assert {dtype for operation in by_network for dtype in operation.dtypes} == {torch.float16}
    others = [operation for operation in gpu.operations if operation.name not in {"copy_", "to", "_to_copy"}]
    assert [operation for operation in others if len(set(operation.dtypes)) > 1] == [], "dtypes meet"
    assert {dtype for operation in others for dtype in operation.dtypes} == {torch.float16, torch.float32}
    engine = Engine(model)
    add_all(engine, wishes[:1])
    begun = False
    while not begun:
        begun = any(isinstance(event, StepTaken) for event in engine.step())
    [picture] = engine._batch_scheduler.running
    assert picture.leg.slots.dtype == torch.float32


@pytest.mark.parametrize(
    "kind",
    [
        {"arch": "tiny-xl"},
        {"arch": "tiny-2", "is_inpainting": True},
        {"arch": "tiny", "embeds_guidance": True, "vae": "tiny"},
        {"arch": "tiny-16"},
    ],
    ids=lambda kind: kind["arch"],
)
def test_nothing_waits_for_the_device_but_what_must(
    gpu: RehearsedGpu, tmp_path: Path, wishes: list[GenerationParams], kind: dict[str, Any]
):
    """
    Neither preparing a request, nor reading its prompts, nor a step, with its previews; only pixels that come or go.
    """
    make_random_model(tmp_path / "model", seed=1, **kind)
    engine = Engine(model_on(DEVICE, tmp_path / "model", torch.float16), rows_per_call=8)
    engine.learn_colours()
    gpu.waits.clear()
    for index, wish in enumerate(wishes):
        engine.add(engine.prepare(str(index), wish, inputs=INPUTS, wants_previews=True))
    seen: set[str] = set()
    while engine.has_work:
        events = engine.step()
        assert not [event for event in events if isinstance(event, Failed)]
        kinds = {event.kind for event in events if isinstance(event, WorkItem)}
        seen |= kinds
        if kinds & {"decode", "encode_image"}:
            # Is it finite? And the picture itself, on its way out or in.
            assert len(gpu.waits) <= 3 * len(kinds)
            gpu.waits.clear()
        assert gpu.waits == [], kinds
    assert seen >= {"encode", "encode_image", "step", "decode"}


@pytest.mark.parametrize("fails_at", [0, 40, 400])
def test_memory_that_runs_out_anywhere_in_a_step_costs_no_picture(
    gpu: RehearsedGpu, tiny_model_folder: Path, wishes: list[GenerationParams], fails_at: int
):
    engine = Engine(model_on(DEVICE, tiny_model_folder), rows_per_call=8)
    wishes = [wish for wish in wishes if wish.image is None]
    add_all(engine, wishes)
    events: list[EngineEvent] = []
    while not any(isinstance(event, StepTaken) for event in events):
        events += engine.step()
    gpu.fails_at = fails_at
    while engine.has_work:
        events += engine.step()
    assert gpu.emptied == 1
    assert [event.kind for event in events if isinstance(event, RanOutOfMemory)] == ["step"]
    assert not [event for event in events if isinstance(event, Failed)]
    assert len([event for event in events if isinstance(event, ImageDrawn)]) == len(wishes)


def test_the_rows_of_a_call_are_measured_on_the_device(gpu: RehearsedGpu, tiny_model_folder: Path):
    model = model_on(DEVICE, tiny_model_folder)
    assert measure_rows_per_call(model) in {2, 4, 8, 16, 32}
    assert "synchronize" in gpu.waits


# --- the rehearsal itself ---------------------------------------------------------------------------------------------


@torch.inference_mode()
def test_what_would_wait_is_seen(gpu: RehearsedGpu):
    tensor = torch.ones(3, device=DEVICE)
    pinned = torch.ones(3).pin_memory()
    acts = {
        "item": tensor[0].item,
        "is_nonzero": lambda: bool(tensor[0]),
        "index": lambda: tensor[tensor > 0],
        "to from cuda to cpu": tensor.cpu,
        "to from cpu to cuda": lambda: torch.ones(3).to(DEVICE, non_blocking=True),
        "copy_ from cpu to cuda": lambda: tensor.copy_(pinned),
    }
    for expected, act in acts.items():
        gpu.waits.clear()
        act()
        assert [wait.replace("_to_copy", "to") for wait in gpu.waits] == [expected]
    gpu.waits.clear()
    pinned.to(DEVICE, non_blocking=True)
    torch.empty(3, pin_memory=True).copy_(tensor, non_blocking=True)
    assert gpu.waits == []


@torch.inference_mode()
def test_devices_that_meet_are_an_error(gpu: RehearsedGpu):
    with pytest.raises(RuntimeError, match="same device"):
        torch.ones(3, device=DEVICE) + torch.ones(3)
    assert (torch.ones(3, device=DEVICE) + torch.tensor(1.0)).device == DEVICE, "a number may come from the host"
