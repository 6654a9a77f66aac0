"""The engine's thread: when it listens, and in which order it tells."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from engine.engine import Engine
from engine.models.fake import FakeModel
from engine.params import GenerationParams
from server.executors import worker
from server.executors.messages import Cancel, FromEngine, ImageReady, JobDone, Ping, Pong, Progress, Submit
from server.executors.worker import EngineWorker


def submit(job_id: str, **wishes: object) -> Submit:
    ordinary = {"prompt": "a cat", "seed": 7, "num_inference_steps": 5, "height": 64, "width": 64}
    return Submit(job_id, GenerationParams(**(ordinary | wishes)), "png")


def conversation(
    first: Submit, last_job: str, reply: Callable[[EngineWorker, FromEngine], None] = lambda *_: None
) -> list[FromEngine]:
    """Everything that a worker says until `last_job` is done; `reply` may answer at once, on the engine's thread."""
    said: list[FromEngine] = []

    def hear(message: FromEngine) -> None:
        said.append(message)
        reply(engine_worker, message)
        if isinstance(message, JobDone) and message.job_id == last_job:
            engine_worker.stop()

    engine_worker = EngineWorker(Engine(FakeModel(), rows_per_call=2), hear)
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
    encode_image = worker.encode_image
    seconds = iter((0.2, 0.0))

    def slowly(*arguments):
        time.sleep(next(seconds))
        return encode_image(*arguments)

    monkeypatch.setattr(worker, "encode_image", slowly)
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
