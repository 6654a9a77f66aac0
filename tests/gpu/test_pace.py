"""Whether host and device work side by side: nothing in the step loop waits for the device, and little is in line."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from engine.engine import Engine
from engine.events import Finished, StepTaken, WorkItem
from engine.models.locate import locate
from engine.models.stable_diffusion import StableDiffusion
from engine.params import GenerationParams
from tests.engine.drawing import add_all
from tests.gpu.wishes import wish


def mixed(model: StableDiffusion) -> list[GenerationParams]:
    """Of three samplers, one of which draws noise in every step, and one request without guidance."""
    return [
        wish(model, num_inference_steps=12),
        wish(model, num_inference_steps=12, sampler="Euler a", noise_schedule="default", seed=8),
        wish(model, num_inference_steps=12, sampler="DDIM", noise_schedule="default", guidance_scale=1.0),
    ]


@contextlib.contextmanager
def waiting_is_an_error() -> Iterator[None]:
    """What makes the host wait for the device raises: `.item()`, truth of a tensor, a copy from pageable memory.

    Waiting for an event, as the engine's pacing does, stays allowed.
    """
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def step_until_all_are_under_way(engine: Engine, num_requests: int) -> None:
    """Read all prompts, and let each request take a step."""
    begun: set[str] = set()
    while len(begun) < num_requests:
        begun |= {event.request_id for event in engine.step() if isinstance(event, StepTaken)}


class Operations(TorchDispatchMode):
    """The names of all operations, on any device."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


VALUE_READERS = {"_local_scalar_dense", "item", "is_nonzero", "nonzero", "masked_select", "equal", "index"}
"""Operations whose result the host must know before it can go on; `index` is one if it is given a mask."""


@torch.inference_mode()
def test_reading_a_tensors_value_is_seen():
    tensor = torch.ones(3)
    for read in (
        tensor[0].item,
        lambda: bool(tensor[0]),
        lambda: float(tensor.sum()),
        lambda: tensor[tensor > 0],
    ):
        with Operations() as operations:
            read()
        assert VALUE_READERS & set(operations.names), operations.names


def test_no_operation_of_a_step_asks_for_a_tensors_value(model_folder):
    """Half of the promise below, where there is no GPU; copies between devices are not seen here."""
    model = StableDiffusion.load(locate(str(model_folder("tiny"))), torch.device("cpu"), torch.float32)
    engine = Engine(model, rows_per_call=8)
    add_all(engine, mixed(model))
    step_until_all_are_under_way(engine, 3)
    with Operations() as operations:
        engine.step()
    assert {"conv2d", "convolution"} & set(operations.names), "the network's own operations are not seen"
    assert not VALUE_READERS & set(operations.names)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("name", ["dreamlet", "sd15"])
def test_nothing_in_the_step_loop_waits_for_the_device(half, name):
    model = half(name)
    requests = mixed(model)
    engine = Engine(model, rows_per_call=8)  # five rows and three of padding
    add_all(engine, requests)
    step_until_all_are_under_way(engine, len(requests))
    with waiting_is_an_error():
        events = [event for _ in range(6) for event in engine.step()]
    assert [type(event) for event in events] == 6 * [WorkItem, StepTaken, StepTaken, StepTaken], events


@pytest.mark.gpu
def test_a_cancel_takes_effect_within_two_steps(half):
    """However fast the host is, what it has handed to the device ahead of time is little."""
    model = half("sd15")
    rows = 16
    engine = Engine(model, rows_per_call=rows)
    add_all(engine, [wish(model, num_inference_steps=100, seed=seed) for seed in range(rows // 2)])
    step_until_all_are_under_way(engine, rows // 2)
    step_s: list[float] = []
    for _ in range(5):
        torch.cuda.synchronize()
        began = time.perf_counter()
        engine.step()
        torch.cuda.synchronize()
        step_s.append(time.perf_counter() - began)
    for _ in range(12):
        engine.step()
    for index in range(rows // 2):
        engine.cancel(str(index))
    cancelled = time.perf_counter()
    assert not engine.has_work
    torch.cuda.synchronize()
    # A quarter of a step for what the clocks do when there is no pause between steps.
    assert time.perf_counter() - cancelled <= 2.25 * sorted(step_s)[2]


@pytest.mark.gpu
def test_who_joins_beside_a_cancelled_request_is_not_held_up(half):
    model = half("sd15")
    engine = Engine(model, rows_per_call=4)
    add_all(engine, [wish(model, num_inference_steps=100), wish(model, num_inference_steps=100, seed=8)])
    step_until_all_are_under_way(engine, 2)
    engine.cancel("0")
    engine.add(engine.prepare("new", wish(model, num_inference_steps=2, seed=9)))
    for _ in range(8):
        if any(isinstance(event, Finished) and event.request_id == "new" for event in engine.step()):
            return
    pytest.fail("two steps took more than eight work items")
