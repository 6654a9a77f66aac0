"""Engine start-up: chooses the device, loads the model, measures the best number of rows per call."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import torch

from engine.backends.base import Backend
from engine.backends.choice import choose_backend
from engine.backends.conversion_process import ConversionProcess
from engine.backends.torch_backend import TorchBackend
from engine.engine import Engine
from engine.errors import EngineError, InvalidParamsError, ModelLoadError
from engine.journey import route_of
from engine.journey_cache import JourneyCache
from engine.models.base import DiffusionModel
from engine.models.fake import FakeModel
from engine.models.layout import read_configs
from engine.models.locate import locate
from engine.params import GenerationParams
from engine.table_store import TableStore
from engine.warm_up import WarmUp
from server.executors.engine_class import engine_class_of
from server.executors.messages import Configure, EngineInfo, Loading, LoadProgress, WorkDone
from server.worker.class_facts import ModelDigest, begun_model_digest, versions
from server.worker.conversion import converted_backend
from server.worker.models import inversions_in, remembered_rows

__all__ = ["phase", "start_engine", "warm_up_of"]

logger = logging.getLogger(__name__)

Report = Callable[[Loading | LoadProgress | WorkDone], None]

_DTYPES: Final = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

_COLOURS_WAIT_S: Final = 1.0
"""Learning a model's colours takes some hundred milliseconds. Pictures that take longer than this can spare them."""


def start_engine(
    configuration: Configure, report: Report, conversion: ConversionProcess | None = None
) -> tuple[Engine, EngineInfo]:
    """Load, and warm up if the configuration says so.

    Args:
        configuration: what to load, and how to run it.
        report: told begin and end of every phase (see `LoadProgress`), and how long the warm-up's work took.
        conversion: of this model, if it was begun.

    Raises:
        EngineError: the model is not there or cannot be served on this device.
        Exception: memory or device are not free now; another process may succeed.
    """
    try:
        return _start(configuration, report, conversion)
    except EngineError:
        raise
    except Exception as error:  # the model's files are anybody's, and libraries raise anything for them
        if _may_work_later(error):
            raise
        raise ModelLoadError(f"{configuration.model_id} cannot be loaded: {_first_line(error)}") from error


@contextlib.contextmanager
def phase(name: str, report: Report) -> Iterator[None]:
    """Tell that a phase of the start begins, and how long it took when it ends."""
    began = time.perf_counter()
    report(Loading(name))
    yield
    report(LoadProgress(name, time.perf_counter() - began))


def warm_up_of(engine: Engine, configuration: Configure) -> WarmUp:
    """What makes an engine warm, not yet done."""
    return WarmUp(
        engine,
        sampler=configuration.sampler,
        noise_schedule=configuration.noise_schedule,
        num_inference_steps=configuration.num_inference_steps,
    )


def _start(configuration: Configure, report: Report, conversion: ConversionProcess | None) -> tuple[Engine, EngineInfo]:
    with begun_model_digest(configuration.model_id, configuration.cache_folder) as digest:
        return _loaded(configuration, report, conversion, digest)


def _loaded(
    configuration: Configure, report: Report, conversion: ConversionProcess | None, digest: ModelDigest
) -> tuple[Engine, EngineInfo]:
    model, backend, warning = _load(configuration, report, conversion)
    rows_per_call = configuration.rows_per_call or _measured_rows_per_call(configuration, model, report)
    engine = Engine(
        model,
        rows_per_call=rows_per_call,
        max_images_in_flight=configuration.max_images_in_flight,
        is_reproducible=configuration.reproducible,
        tables=_tables(configuration),
        unlearnt_colours_wait_s=0.0 if configuration.warms_up_first else _COLOURS_WAIT_S,
    )
    if configuration.warms_up_first:
        _warm_up(engine, configuration, report, backend.name)
    info = model.info
    num_threads = backend.num_threads if info.device.type == "cpu" else None
    dtype = str(info.dtype).removeprefix("torch.")
    return engine, EngineInfo(
        model_id=info.model_id,
        device=str(info.device),
        device_name=_device_name(info.device),
        dtype=dtype,
        native_height=info.native_height,
        native_width=info.native_width,
        rows_per_call=rows_per_call,
        max_images_in_flight=engine.max_images_in_flight,
        backend=backend.name,
        num_threads=num_threads,
        warning=warning,
        engine_class=engine_class_of(
            model=digest.get(),
            versions=versions(info.device),
            dtype=dtype,
            vae_dtype=configuration.vae_dtype,
            backend=backend.name,
            num_threads=num_threads,
            rows_per_call=rows_per_call,
            reproducible=configuration.reproducible,
        ),
    )


def _make_default_table(configuration: Configure, folder: Path) -> None:
    """On the first start of all diffusers is imported for it: there is time while the model is converted."""
    configs = read_configs(folder)
    journeys = JourneyCache(configs.scheduler, store=_tables(configuration))
    params = GenerationParams(
        prompt="warm-up",
        seed=0,
        sampler=configuration.sampler,
        noise_schedule=configuration.noise_schedule,
        num_inference_steps=configuration.num_inference_steps,
    )
    with contextlib.suppress(InvalidParamsError):  # the request that asks for it is told
        journeys.get(route_of(params.legs[0], configs.family))


def _tables(configuration: Configure) -> TableStore | None:
    folder = configuration.cache_folder
    return TableStore(Path(folder) / "sampler_tables") if folder is not None else None


def _measured_rows_per_call(configuration: Configure, model: DiffusionModel, report: Report) -> int:
    with phase("measure", report):
        return remembered_rows(configuration, model, _device_name(model.info.device))


def _warm_up(engine: Engine, configuration: Configure, report: Report, backend: str) -> None:
    with phase("warm_up", report):
        warm_up = warm_up_of(engine, configuration)
        while not warm_up.is_done:
            work = warm_up.take_piece()
    for item in work:
        report(WorkDone(item.kind, item.seconds, item.rows, item.height, item.width, backend=backend))


def _load(
    configuration: Configure, report: Report, conversion: ConversionProcess | None
) -> tuple[DiffusionModel, Backend, str | None]:
    """The model, what runs it, and what the operator should know of that."""
    folder = locate(configuration.model_id)
    if folder.path is None:
        return FakeModel(folder.model_id), TorchBackend(), None
    device = _choose_device(configuration.device)
    dtype = _choose_dtype(configuration.dtype, device)
    cache_folder = Path(configuration.cache_folder) if configuration.cache_folder is not None else None
    with phase("import_model", report):
        from engine.models.stable_diffusion import StableDiffusion  # noqa: PLC0415 - timed, and spared for the fake

        backend = choose_backend(configuration.backend, device, dtype, cache_folder)
        vae_dtype = None if configuration.vae_dtype == "auto" else _DTYPES[configuration.vae_dtype]
        if backend.name == "openvino" and vae_dtype not in (None, torch.float32):
            raise ModelLoadError(
                f"VAE_DTYPE={configuration.vae_dtype}, but OpenVINO computes in float32 only; set VAE_DTYPE=auto or "
                "BACKEND=torch"
            )
    backend, warning = converted_backend(
        backend,
        folder.path,
        configuration,
        conversion,
        report,
        meanwhile=functools.partial(_make_default_table, configuration, folder.path),
    )
    with phase("load", report):
        inversions = inversions_in(configuration.embeddings_folder)
        return StableDiffusion.load(folder, device, dtype, backend, vae_dtype, inversions), backend, warning


def _choose_device(wanted: str) -> torch.device:
    """`auto` is the first GPU that torch can use, else the CPU; a GPU that is there and cannot be used is logged."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(wanted)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelLoadError(f"DEVICE={wanted}, but torch {torch.__version__} finds no GPU it can use here")
    return device


def _choose_dtype(wanted: str, device: torch.device) -> torch.dtype:
    if wanted == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    return _DTYPES[wanted]


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def _may_work_later(error: Exception) -> bool:
    """Whether another process may succeed: memory is free again, the device is back."""
    return isinstance(error, MemoryError) or "out of memory" in str(error) or "CUDA" in str(error)


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:500]
