"""The engine when memory is short, a request fails, or the device does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from engine.engine import Engine
from engine.errors import DeviceError, DoesNotFitError, InvalidParamsError, NotFiniteError
from engine.events import Failed, Finished, ImageDrawn, RanOutOfMemory, WorkItem
from engine.models.base import EncodedPrompt
from engine.models.fake import FakeModel
from engine.prompts.prompt import Prompt
from tests.engine.drawing import add_all, alone, images, run

# --- memory -----------------------------------------------------------------------------------------------------------


def test_out_of_memory_costs_nobody_a_picture(mixed, lonely):
    """Calls of more than three rows do not fit: the newest wait, and all get the pictures they would have got alone."""
    engine = Engine(FakeModel(max_rows=3), rows_per_call=6)
    add_all(engine, mixed)
    assert images(run(engine)) == lonely


def test_the_learned_limit_is_kept(params):
    model = FakeModel(max_rows=4)
    engine = Engine(model, rows_per_call=8)
    for _ in range(2):
        add_all(engine, [params(seed=seed) for seed in range(4)])
        rows = [event.rows for event in run(engine) if isinstance(event, WorkItem) and event.kind == "step"]
        assert set(rows) == {4}


def test_a_picture_that_does_not_fit_alone_fails_and_its_neighbours_go_on(params):
    engine = Engine(FakeModel(max_rows=1), rows_per_call=6)
    add_all(engine, [params(), params(guidance_scale=1.0)])
    events = run(engine)
    (failed,) = [event for event in events if isinstance(event, Failed)]
    assert failed.request_id == "0"
    assert isinstance(failed.error, DoesNotFitError)
    assert [event.request_id for event in events if isinstance(event, Finished)] == ["1"]


class TightDecode(FakeModel):
    """Has no memory to decode beside a running batch."""

    def __init__(self) -> None:
        super().__init__()
        self.engine: Engine | None = None

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        if self.engine is not None and self.engine._batch_scheduler.running:
            raise torch.OutOfMemoryError("no room to decode (injected)")
        return super().decode(latents)


def test_a_decode_that_does_not_fit_waits_until_the_batch_has_left(params):
    model = TightDecode()
    engine = model.engine = Engine(model, rows_per_call=8, max_images_in_flight=3)
    requests = [params(seed=seed, num_inference_steps=2 + seed) for seed in range(6)]
    add_all(engine, requests)
    events = run(engine)
    assert images(events) == {(str(i), 0): alone(request) for i, request in enumerate(requests)}
    is_awaited = False
    for event in events:
        if isinstance(event, RanOutOfMemory | ImageDrawn):
            is_awaited = isinstance(event, RanOutOfMemory)
        assert not (is_awaited and isinstance(event, WorkItem) and event.kind == "encode"), "none joins meanwhile"


class NoDecode(FakeModel):
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("no room to decode (injected)")


def test_a_decode_that_never_fits_fails_with_a_clear_error(params):
    engine = Engine(NoDecode(), rows_per_call=4)
    add_all(engine, [params(), params()])
    failures = [event for event in run(engine) if isinstance(event, Failed)]
    assert [str(event.error) for event in failures] == [
        "decoding 64x64 does not fit into the device's memory",
        "decoding 64x64 does not fit into the device's memory",
    ]


# --- failures ---------------------------------------------------------------------------------------------------------


class Allergic(FakeModel):
    """Breaks on one prompt, at a chosen piece of work."""

    def __init__(self, work: str) -> None:
        super().__init__()
        self.work = work
        self.poison = super().encode_prompt(Prompt("poison"))

    def encode_prompt(self, prompt: Prompt, num_chunks: int = 1) -> EncodedPrompt:
        if self.work == "encode" and prompt.text == "poison":
            raise ValueError("injected")
        return super().encode_prompt(prompt, num_chunks)

    def denoise(self, latents: torch.Tensor, time: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        if self.work == "step" and any(torch.equal(row, self.poison.attended) for row in prompt):
            raise ValueError("injected")
        return super().denoise(latents, time, prompt)


@pytest.mark.parametrize("work", ["encode", "step"])
def test_one_requests_failure_never_ends_anothers(params, work):
    engine = Engine(Allergic(work), rows_per_call=8)
    add_all(engine, [params(), params(prompt="poison", num_images=2), params(seed=8)])
    events = run(engine)
    (failed,) = [event for event in events if isinstance(event, Failed)]
    assert failed.request_id == "1"
    drawn = images([event for event in events if not isinstance(event, Failed)])
    assert drawn == {("0", 0): alone(params()), ("2", 0): alone(params(seed=8))}
    assert not engine._requests


class Overflowing(FakeModel):
    def denoise(self, latents: torch.Tensor, time: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        prediction = super().denoise(latents, time, prompt)
        prediction[0, 0, 0, 0] = torch.nan  # the negative prompt of the oldest guided picture
        return prediction


def test_a_picture_that_is_not_finite_is_an_error_and_not_a_black_square(params):
    engine = Engine(Overflowing(), rows_per_call=4)
    add_all(engine, [params(), params(seed=8)])
    events = run(engine)
    failures = {event.request_id: event.error for event in events if isinstance(event, Failed)}
    assert failures.keys() == {"0"}
    assert isinstance(failures["0"], NotFiniteError)
    assert [event.request_id for event in events if isinstance(event, Finished)] == ["1"]


class OutOfMemoryInOtherWords(FakeModel):
    """cuBLAS and cuDNN say it as plain RuntimeErrors."""

    def denoise(self, latents: torch.Tensor, time: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        if latents.shape[0] > 2:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)` (injected)")
        return super().denoise(latents, time, prompt)


def test_out_of_memory_is_known_by_every_name_it_has(params):
    engine = Engine(OutOfMemoryInOtherWords(), rows_per_call=6)
    add_all(engine, [params(), params(seed=8)])
    assert images(run(engine)) == {("0", 0): alone(params()), ("1", 0): alone(params(seed=8))}


class BreaksInCompany(FakeModel):
    """Calls for two pictures fail for a reason of their own; one picture alone finds no memory in a padded call."""

    words = "CUDA error: out of memory"

    def denoise(self, latents: torch.Tensor, time: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        if any(bool(row.any()) for row in latents[2:]):
            raise ValueError("injected")
        if latents.shape[0] > 2:
            raise torch.AcceleratorError(f"{self.words} (injected)")
        return super().denoise(latents, time, prompt)


def test_a_picture_that_finds_no_memory_alone_waits_for_a_smaller_call(params):
    """After the batch failed for another reason. In these words it is a device's error, too, but no broken device."""
    engine = Engine(BreaksInCompany(), rows_per_call=6)
    add_all(engine, [params(), params(seed=8)])
    events = run(engine)
    assert [event.kind for event in events if isinstance(event, RanOutOfMemory)] == ["step", "step"]
    assert images(events) == {("0", 0): alone(params()), ("1", 0): alone(params(seed=8))}


class NoMemory(FakeModel):
    """Finds no memory for one kind of work, and says so in the words of the driver."""

    def __init__(self, work: str) -> None:
        super().__init__()
        self.work = work

    def _refuse(self, work: str) -> None:
        if work == self.work:
            raise torch.AcceleratorError("CUDA error: out of memory (injected)")

    def encode_prompt(self, prompt: Prompt, num_chunks: int = 1) -> EncodedPrompt:
        self._refuse("encode")
        return super().encode_prompt(prompt, num_chunks)

    def denoise(self, latents: torch.Tensor, time: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        self._refuse("step")
        return super().denoise(latents, time, prompt)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        self._refuse("decode")
        return super().decode(latents)


@pytest.mark.parametrize("work", ["encode", "step", "decode"])
def test_no_piece_of_work_takes_missing_memory_for_a_broken_device(params, work):
    engine = Engine(NoMemory(work), rows_per_call=4)
    add_all(engine, [params()])
    (failed,) = [event for event in run(engine) if isinstance(event, Failed)]
    assert isinstance(failed.error, DoesNotFitError)


class OnAnotherDevice(FakeModel):
    """Its device holds no numbers, only shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.info = replace(self.info, device=torch.device("meta"))

    def embed_time(self, timesteps: torch.Tensor, prompt: EncodedPrompt, *_: object) -> torch.Tensor:
        return timesteps.new_empty(len(timesteps), 2)


def test_later_noise_is_on_the_device_only_while_a_picture_is_drawn(params):
    engine = Engine(OnAnotherDevice(), rows_per_call=2, max_images_in_flight=1)
    request = engine.prepare("0", params(num_images=2, sampler="Euler a", noise_schedule="default"))
    assert {picture.leg.noise.steps.device.type for picture in request.pictures} == {"cpu"}
    engine.add(request)
    engine.step()
    first, second = (picture.leg.noise.steps for picture in request.pictures)
    assert (first.device.type, second.device.type) == ("meta", "cpu")


class BrokenDevice(FakeModel):
    def denoise(self, latents: torch.Tensor, time: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


def test_a_broken_device_ends_the_engine(params):
    """Nothing that the device says afterwards can be trusted, so no request is blamed for it."""
    engine = Engine(BrokenDevice())
    add_all(engine, [params()])
    with pytest.raises(DeviceError, match="illegal memory access"):
        run(engine)


def test_a_sampler_that_clips_is_refused_when_the_request_is_prepared(params):
    model = FakeModel()
    config = {**model.info.scheduler_config, "clip_sample": True}
    object.__setattr__(model.info, "scheduler_config", config)
    with pytest.raises(InvalidParamsError, match="sampler must be linear"):
        Engine(model).prepare("0", params(sampler="DDIM", noise_schedule="default"))
