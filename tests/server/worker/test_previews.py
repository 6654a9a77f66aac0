"""Previews as files: small, and of no consequence to the job they show."""

from __future__ import annotations

import io
import threading

import numpy as np
import pytest
from PIL import Image

from engine.engine import Engine
from engine.models.fake import FakeModel
from engine.params import GenerationParams
from server.executors.messages import FromEngine, ImageReady, JobDone, Preview, Progress, Submit
from server.worker import engine_worker
from server.worker.engine_worker import EngineWorker
from server.worker.image_files import encode_preview


def told(submit: Submit, *, waits_for_preview: bool = False) -> list[FromEngine]:
    """Everything that a worker says of a job.

    Args:
        submit: the job.
        waits_for_preview: whether the engine takes its third step only when the first step's preview is there.
            It is otherwise free to finish the job first, and the preview of a finished job is not sent.
    """
    said: list[FromEngine] = []
    is_shown = threading.Event()

    def hear(message: FromEngine) -> None:
        said.append(message)
        if isinstance(message, Preview):
            is_shown.set()
        if waits_for_preview and isinstance(message, Progress) and message.step == 2:
            assert is_shown.wait(20), "no preview came"
        if isinstance(message, JobDone):
            engine_worker.stop()

    engine_worker = EngineWorker(Engine(FakeModel()), hear)
    engine_worker.handle(submit)
    thread = threading.Thread(target=engine_worker.run, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "it never came to an end"
    return said


def submit() -> Submit:
    params = GenerationParams(prompt="a cat", seed=7, num_inference_steps=5, height=64, width=96)
    return Submit("a", params, "png")


@pytest.mark.parametrize(
    ("size", "shown"),
    [((8, 8), (32, 32)), ((32, 32), (128, 128)), ((64, 48), (128, 96)), ((256, 8), (128, 4)), ((32, 256), (16, 128))],
)
def test_a_preview_is_enlarged_at_most_fourfold_and_never_large(size: tuple[int, int], shown: tuple[int, int]):
    pixels = np.zeros((*size, 3), dtype=np.uint8)
    pixels[: size[0] // 2] = (200, 40, 90)
    file = encode_preview(pixels)
    assert file.media_type == "image/jpeg"
    assert len(file.data) < 4000
    picture = Image.open(io.BytesIO(file.data))
    assert (picture.height, picture.width) == shown
    colour = picture.getpixel((shown[1] // 2, shown[0] // 8))
    assert max(abs(have - want) for have, want in zip(colour, (200, 40, 90), strict=True)) < 12


def test_a_worker_sends_previews_before_the_picture():
    said = [message for message in told(submit(), waits_for_preview=True) if isinstance(message, Preview | ImageReady)]
    assert isinstance(said[0], Preview)
    assert (said[0].job_id, said[0].image_index, said[0].step) == ("a", 0, 1)
    picture = Image.open(io.BytesIO(said[0].data))
    assert picture.format == "JPEG"
    assert picture.size == (48, 32)
    assert isinstance(said[-1], ImageReady)


def test_a_preview_that_cannot_be_made_costs_the_job_nothing(monkeypatch: pytest.MonkeyPatch):
    expected = [message.data for message in told(submit()) if isinstance(message, ImageReady)]

    def fails(_: object) -> None:
        raise ValueError("injected")

    monkeypatch.setattr(engine_worker, "encode_preview", fails)
    said = told(submit())
    assert not any(isinstance(message, Preview) for message in said)
    assert [message.data for message in said if isinstance(message, ImageReady)] == expected
