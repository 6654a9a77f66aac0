"""From a configuration to a warm engine: choose the device, load the model, measure how many rows a call takes best."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import torch

from engine.engine import Engine
from engine.errors import ModelLoadError
from engine.models.base import DiffusionModel
from engine.models.fake import FakeModel
from engine.models.locate import locate
from engine.warm_up import measure_rows_per_call, warm_up
from server.executors.messages import Configure, EngineInfo, LoadProgress, WorkDone

__all__ = ["start_engine"]

logger = logging.getLogger(__name__)


def start_engine(
    configuration: Configure, report: Callable[[LoadProgress | WorkDone], None]
) -> tuple[Engine, EngineInfo]:
    """Load and warm up.

    Args:
        configuration: what to load, and how to run it.
        report: told the end of every phase (`import_model`, `load`, `warm_up`), and how long the warm-up's work took.

    Raises:
        EngineError: the model is not there or cannot be served on this device.
    """
    model = _load(configuration, report)
    loaded = time.perf_counter()
    rows_per_call = configuration.rows_per_call or measure_rows_per_call(model)
    engine = Engine(
        model,
        rows_per_call=rows_per_call,
        max_images_in_flight=configuration.max_images_in_flight,
        is_reproducible=configuration.reproducible,
    )
    work = warm_up(
        engine,
        sampler=configuration.sampler,
        noise_schedule=configuration.noise_schedule,
        num_inference_steps=configuration.num_inference_steps,
    )
    report(LoadProgress("warm_up", time.perf_counter() - loaded))
    for item in work:
        report(WorkDone(item.kind, item.seconds, item.rows, item.height, item.width))
    info = model.info
    return engine, EngineInfo(
        model_id=info.model_id,
        device=str(info.device),
        device_name=_device_name(info.device),
        dtype=str(info.dtype).removeprefix("torch."),
        native_height=info.native_height,
        native_width=info.native_width,
        rows_per_call=rows_per_call,
        max_images_in_flight=engine.max_images_in_flight,
    )


def _load(configuration: Configure, report: Callable[[LoadProgress], None]) -> DiffusionModel:
    folder = locate(configuration.model_id)
    if folder.path is None:
        return FakeModel()
    began = time.perf_counter()
    from engine.models.stable_diffusion import StableDiffusion  # noqa: PLC0415 - seconds of imports; timed, and spared for the fake

    imported = time.perf_counter()
    report(LoadProgress("import_model", imported - began))
    device = _choose_device(configuration.device)
    model = StableDiffusion.load(folder, device, _choose_dtype(configuration.dtype, device))
    report(LoadProgress("load", time.perf_counter() - imported))
    return model


def _choose_device(wanted: str) -> torch.device:
    """`auto` is the first GPU that torch can use, else the CPU; a GPU that is there and cannot be used is told."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(wanted)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelLoadError(f"DEVICE={wanted}, but torch {torch.__version__} finds no GPU it can use here")
    return device


def _choose_dtype(wanted: str, device: torch.device) -> torch.dtype:
    if wanted == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    return {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[wanted]


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
