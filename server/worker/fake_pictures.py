"""Messages and pictures of the fake engines: tiny pictures that depend on every parameter. No torch, no numpy.

A swapped seed, prompt or size shows.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import astuple
from typing import Final

from engine.params import GenerationParams
from server.executors.engine_class import engine_class_of
from server.executors.messages import EngineInfo, ImageReady, JobDone, Preview, Submit, WorkDone
from server.picture_info.file_info import NOTHING, FileInfo, file_info
from server.picture_info.png import PNG_SIGNATURE, info_chunks, png_chunk

__all__ = ["fake_image", "fake_info", "fake_job_done", "fake_png", "fake_preview", "fake_work"]

_SIZE: Final = 8
"""Pixels along each side."""
_READABLE_CHARACTERS: Final = 300
"""Of the prompt; stands for the 77 tokens of a real text encoder."""
_STEPS_A_PREVIEW: Final = 5


def fake_info(model_id: str, max_images_in_flight: int) -> EngineInfo:
    """What a fake engine says of itself."""
    rows_per_call = 2 * max_images_in_flight
    return EngineInfo(
        model_id=model_id,
        device="cpu",
        device_name="no device",
        dtype="float32",
        native_height=512,
        native_width=512,
        rows_per_call=rows_per_call,
        max_images_in_flight=max_images_in_flight,
        engine_class=engine_class_of(model=model_id.partition(":")[0], rows_per_call=rows_per_call),
    )


def fake_image(submit: Submit, image_index: int, model_name: str, steps_left_out: int = 0) -> ImageReady:
    """A finished picture, or one that is handed over early. Its bytes are a PNG's, whatever the format."""
    alone = submit.params.of_image(image_index)
    info = file_info(submit.params, image_index, submit.params.model or model_name, submit.image_metadata)
    data = _png((*astuple(alone), steps_left_out), info) if steps_left_out else fake_png(alone, info)
    return ImageReady(submit.job_id, image_index, alone.seed, data, f"image/{submit.output_format}")


def fake_preview(job_id: str, params: GenerationParams, image_index: int, step: int) -> Preview | None:
    """What shows of a picture after a step: now and then something, and nothing after the last one."""
    if step % _STEPS_A_PREVIEW != 1 or step == params.progress_steps:
        return None
    data = _png((*astuple(params.of_image(image_index)), step))
    return Preview(job_id, image_index, step, data, "image/png")


def fake_job_done(job_id: str, params: GenerationParams, denoise_s: float) -> JobDone:
    """The end of a job."""
    truncated = max(len(params.prompt), len(params.negative_prompt)) - _READABLE_CHARACTERS
    return JobDone(job_id, 0.0, denoise_s, 0.0, 0.0, max(0, truncated))


def fake_work(
    kind: str, seconds: float, params: GenerationParams, max_images_in_flight: int, rows_by_job: dict[str, int]
) -> WorkDone:
    """A work item of a kind (`encode`, `step`, `decode`) with the rows and the size that a real engine would report."""
    if kind == "encode":
        return WorkDone(kind, seconds, params.rows_per_image, 0, 0, rows_by_job)
    rows = 2 * max_images_in_flight if kind == "step" else 1
    return WorkDone(kind, seconds, rows, params.height, params.width, rows_by_job)


def fake_png(params: GenerationParams, info: FileInfo = NOTHING) -> bytes:
    """A valid PNG of 8x8 pixels whose colours are a hash of everything that was asked."""
    return _png(astuple(params), info)


def _png(request: tuple[object, ...], info: FileInfo = NOTHING) -> bytes:
    pixels = hashlib.shake_256(repr(request).encode()).digest(_SIZE * _SIZE * 3)
    rows = b"".join(b"\0" + pixels[at : at + 3 * _SIZE] for at in range(0, len(pixels), 3 * _SIZE))
    header = struct.pack(">IIBBBBB", _SIZE, _SIZE, 8, 2, 0, 0, 0)
    chunks = (
        png_chunk(b"IHDR", header),
        info_chunks(info),
        png_chunk(b"IDAT", zlib.compress(rows)),
        png_chunk(b"IEND", b""),
    )
    return PNG_SIGNATURE + b"".join(chunks)
