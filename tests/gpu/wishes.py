"""Requests that the GPU's tests make, and the files that come of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from engine.engine import Engine
from engine.events import EngineEvent, Failed, ImageDrawn
from engine.models.stable_diffusion import StableDiffusion
from engine.params import GenerationParams
from server.worker.image_files import encode_image
from tests.engine.drawing import add_all, run

__all__ = ["DREAMLET", "files", "files_of", "wish"]

DREAMLET = Path(__file__).parents[2] / "models" / "dreamlet"


def wish(model: StableDiffusion, **wishes: object) -> GenerationParams:
    """A guided request of few steps at the model's own size; a test states what else matters to it."""
    info = model.info
    ordinary = {"prompt": "a red ball on a beach", "seed": 7, "num_inference_steps": 4}
    return GenerationParams(**({"height": info.native_height, "width": info.native_width} | ordinary | wishes))


def files(events: Sequence[EngineEvent]) -> dict[str, bytes]:
    """Request id -> PNG. Fails if a request did."""
    failures = [event for event in events if isinstance(event, Failed)]
    assert not failures, failures
    return {
        event.request_id: encode_image(event.pixels, "png").data for event in events if isinstance(event, ImageDrawn)
    }


def files_of(engine: Engine, requests: Iterable[GenerationParams]) -> dict[str, bytes]:
    """The pictures of requests that come all at once, by their place in the list."""
    add_all(engine, requests)
    return files(run(engine))
