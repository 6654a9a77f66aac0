"""The engine's thread: when it listens, and in which order it tells."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
import torch

from engine.engine import Engine
from engine.errors import EngineError
from engine.models.fake import FakeModel
from engine.params import GenerationParams
from engine.warm_up import WarmUp
from server.executors.messages import (
    Cancel,
    FromEngine,
    ImageReady,
    JobDone,
    JobFailed,
    LoadFailed,
    OutOfMemory,
    Ping,
    Pong,
    Progress,
    Submit,
    WorkDone,
)
from server.worker import engine_worker
from server.worker.engine_worker import EngineWorker


def submit(job_id: str, **wishes: object) -> Submit:
    ordinary = {"prompt": "a cat", "seed": 7, "num_inference_steps": 5, "height": 64, "width": 64}
    return Submit(job_id, GenerationParams(**(ordinary | wishes)), "png")


def conversation(
    first: Submit,
    last_job: str,
    reply: Callable[[EngineWorker, FromEngine], None] = lambda *_: None,
    model: FakeModel | None = None,
) -> list[FromEngine]:
    """Everything that a worker says until `last_job` is done; `reply` may answer at once, on the engine's thread."""
    said: list[FromEngine] = []

    def hear(message: FromEngine) -> None:
        said.append(message)
        reply(engine_worker, message)
        if isinstance(message, JobDone) and message.job_id == last_job:
            engine_worker.stop()

    engine_worker = EngineWorker(Engine(model or FakeModel(), rows_per_call=2), hear)
    engine_worker.handle(first)
    thread = threading.Thread(target=engine_worker.run, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "it never came to an end"
    return said


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_cancel_is_heard_before_the_next_step(step: int):
    def cancel(engine_worker: EngineWorker, message: FromEngine) -> None:
        if isinstance(message, Progress) and (message.job_id, message.step) == ("cancelled", step):
            engine_worker.handle(Cancel("cancelled"))
            engine_worker.handle(submit("next"))

    said = conversation(submit("cancelled"), "next", cancel)
    steps = [message.step for message in said if isinstance(message, Progress) and message.job_id == "cancelled"]
    assert steps == list(range(1, step + 1))


def test_the_end_of_a_job_never_overtakes_its_pictures(monkeypatch: pytest.MonkeyPatch):
    """Files are written beside the drawing; the first takes long here."""
    encode_image = engine_worker.encode_image
    seconds = iter((0.2, 0.0))

    def slowly(*arguments):
        time.sleep(next(seconds))
        return encode_image(*arguments)

    monkeypatch.setattr(engine_worker, "encode_image", slowly)
    said = conversation(submit("pair", num_images=2), "pair")
    told = [message for message in said if isinstance(message, ImageReady | JobDone)]
    assert [getattr(message, "image_index", "done") for message in told] == [0, 1, "done"]


def test_what_is_cancelled_while_it_waits_to_be_prepared_costs_nothing(monkeypatch: pytest.MonkeyPatch):
    """Large requests take seconds to prepare; callers who hang up at once must not hold up the next one."""
    prepare = Engine.prepare
    prepared: list[str] = []
    first_is_being_prepared, go_on = threading.Event(), threading.Event()

    def slow_prepare(engine: Engine, request_id: str, params: GenerationParams, **options: bool):
        prepared.append(request_id)
        if request_id == "first":
            first_is_being_prepared.set()
            assert go_on.wait(20)
        return prepare(engine, request_id, params, **options)

    monkeypatch.setattr(Engine, "prepare", slow_prepare)
    said: list[FromEngine] = []
    done = threading.Event()

    def hear(message: FromEngine) -> None:
        said.append(message)
        if isinstance(message, JobDone):
            done.set()

    engine_worker = EngineWorker(Engine(FakeModel()), hear)
    thread = threading.Thread(target=engine_worker.run, daemon=True)
    thread.start()
    engine_worker.handle(submit("first"))
    assert first_is_being_prepared.wait(20)
    for index in range(5):
        engine_worker.handle(submit(f"hung up {index}"))
        engine_worker.handle(Cancel(f"hung up {index}"))
    engine_worker.handle(Cancel("first"))
    engine_worker.handle(Ping(3))
    while Pong(3) not in said:
        time.sleep(0.01)  # answered while the first is still being prepared
    engine_worker.handle(submit("next"))
    go_on.set()
    assert done.wait(20)
    engine_worker.stop()
    thread.join(20)
    assert prepared == ["first", "next"]
    assert {message.job_id for message in said if isinstance(message, Progress)} == {"next"}
    assert not engine_worker._formats
    assert not engine_worker._file_seconds


class NoMemoryToPrepare(FakeModel):
    """The driver's words for it: no broken device."""

    def count_truncated_tokens(self, prompt: str) -> int:
        if prompt == "large":
            raise torch.AcceleratorError("CUDA error: out of memory (injected)")
        return super().count_truncated_tokens(prompt)


def test_a_request_that_finds_no_memory_while_it_is_prepared_fails_alone():
    def ask_again(engine_worker: EngineWorker, message: FromEngine) -> None:
        if isinstance(message, JobFailed):
            engine_worker.handle(submit("next"))

    said = conversation(submit("large", prompt="large"), "next", ask_again, NoMemoryToPrepare())
    assert [message.kind for message in said if isinstance(message, OutOfMemory)] == ["prepare"]
    assert [(message.job_id, message.error) for message in said if isinstance(message, JobFailed)] == [
        ("large", "DoesNotFitError")
    ]


class Watched(FakeModel):
    """Remembers the height of the latents of each call; the warm-up's are larger than those of `submit`."""

    def __init__(self) -> None:
        super().__init__()
        self.heights: list[int] = []
        self.before_call: Callable[[], object] = lambda: None

    def denoise(self, latents: torch.Tensor, timesteps: torch.Tensor, prompt_embeds: torch.Tensor) -> torch.Tensor:
        self.heights.append(latents.shape[-2])
        self.before_call()
        return super().denoise(latents, timesteps, prompt_embeds)


WARM_UP, JOB = 64, 8
"""Rows of latents."""


class Cold:
    """A worker whose engine is not warm, on a thread of its own."""

    def __init__(self, model: FakeModel) -> None:
        self.said: list[FromEngine] = []
        engine = Engine(model, rows_per_call=2)
        warm_up = WarmUp(engine, sampler="DPMSolver++", noise_schedule="karras", num_inference_steps=5)
        self.worker = EngineWorker(engine, self.said.append, warm_up)
        self.thread = threading.Thread(target=self.worker.run, daemon=True)

    def until(self, happened: Callable[[list[FromEngine]], bool]) -> None:
        deadline = time.monotonic() + 20
        while not happened(self.said):
            assert time.monotonic() < deadline, self.said
            time.sleep(0.005)

    def stop(self) -> None:
        self.worker.stop()
        self.thread.join(20)
        assert not self.thread.is_alive()

    @property
    def work(self) -> list[str]:
        return [message.kind for message in self.said if isinstance(message, WorkDone) and not message.rows_by_job]


def _is_done(job_id: str) -> Callable[[list[FromEngine]], bool]:
    return lambda said: any(isinstance(message, JobDone) and message.job_id == job_id for message in said)


def test_an_idle_worker_warms_up_and_tells_nobodys_work(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine_worker, "WARM_UP_AFTER_S", 0.05)
    model = Watched()
    cold = Cold(model)
    cold.thread.start()
    cold.until(lambda _: len(cold.work) == 3)
    cold.worker.handle(Ping(1))
    cold.until(lambda said: Pong(1) in said)
    cold.stop()
    assert cold.work == ["encode", "step", "decode"]
    assert model.heights == [WARM_UP] * 2
    assert not any(isinstance(message, Progress | ImageReady | JobDone) for message in cold.said)


def test_a_job_that_is_there_at_once_is_drawn_before_any_warm_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine_worker, "WARM_UP_AFTER_S", 0.2)
    model = Watched()
    cold = Cold(model)
    cold.worker.handle(submit("first"))
    cold.thread.start()
    cold.until(_is_done("first"))
    for number in range(100):  # the gateway asks for signs of life; that is no work
        cold.worker.handle(Ping(number))
        time.sleep(0.005)
        if cold.work:
            break
    cold.stop()
    assert cold.work == ["encode", "step", "decode"]
    assert model.heights == [JOB] * 5 + [WARM_UP] * 2


def test_a_job_that_comes_in_the_middle_of_the_warm_up_goes_first(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine_worker, "WARM_UP_AFTER_S", 0.05)
    [expected] = [message.data for message in conversation(submit("alone"), "alone") if isinstance(message, ImageReady)]
    model = Watched()
    cold = Cold(model)

    def send_a_job() -> None:
        model.before_call = lambda: None
        cold.worker.handle(submit("job"))

    model.before_call = send_a_job
    cold.thread.start()
    cold.until(_is_done("job"))
    assert not cold.work
    cold.until(lambda _: len(cold.work) == 3)
    cold.stop()
    assert model.heights == [WARM_UP, *[JOB] * 5, *[WARM_UP] * 2]
    assert [message.data for message in cold.said if isinstance(message, ImageReady)] == [expected]


def test_a_model_that_proves_unable_to_draw_is_told_and_ends_the_worker(monkeypatch: pytest.MonkeyPatch):
    class Broken(FakeModel):
        def decode(self, latents: torch.Tensor) -> torch.Tensor:
            raise EngineError("the decoder is broken")

    monkeypatch.setattr(engine_worker, "WARM_UP_AFTER_S", 0.05)
    cold = Cold(Broken())
    cold.thread.start()
    cold.thread.join(20)
    assert not cold.thread.is_alive()
    assert cold.said == [LoadFailed("the decoder is broken")]
