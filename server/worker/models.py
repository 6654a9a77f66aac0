"""The models that one engine process draws with: loads each when it is first asked for, within the memory budget."""

from __future__ import annotations

import functools
import gc
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch

from engine.backends.base import Backend
from engine.backends.choice import choose_backend
from engine.backends.kept_networks import KeptNetworks
from engine.engine import Engine
from engine.errors import EngineError, InvalidParamsError, ModelLoadError
from engine.models.base import DiffusionModel
from engine.models.fake import FakeModel
from engine.models.locate import locate
from engine.models.sizes import memory_bytes
from engine.models.textual_inversions import TextualInversion, read_textual_inversions
from engine.shelf import Shelf
from engine.table_store import TableStore
from engine.warm_up import CPU_ROWS, measure_rows_per_call
from server.executors.messages import Configure, EngineInfo

__all__ = ["DEFAULT", "inversions_in", "remembered_rows", "shelf_of"]

logger = logging.getLogger(__name__)

DEFAULT: Final = ""
"""What requests call the model that `MODEL_ID` names."""

_GPU_SHARE: Final = 0.6
"""Of a GPU's memory, for weights: the rest is for what is computed with them."""
_CPU_SHARE: Final = 0.5
"""Of the memory that is free when the engine starts."""
_HOST_SHARE: Final = 0.25
"""The same, beside a GPU: for weights that had to leave it."""


def shelf_of(configuration: Configure, engine: Engine, info: EngineInfo) -> Shelf[Engine]:
    """A shelf with the model that was loaded at the start, and room for the others."""
    device, dtype = engine.model.info.device, engine.model.info.dtype
    names = {DEFAULT: configuration.model_id, **configuration.models}

    @functools.cache
    def size_of(model_id: str) -> int:
        try:
            path = locate(model_id).path
            return 0 if path is None else memory_bytes(path, dtype.itemsize)
        except EngineError as error:  # whoever asks for it is told so, and nobody else
            logger.warning("a model cannot be measured: %s", error)
            return 0

    kept = None if device.type == "cpu" else KeptNetworks(device, _host_budget(configuration))

    @functools.cache
    def one_for_all() -> Backend:
        # Each OpenVINO keeps memory of its own, and after the first it finds one thread left.
        return choose_backend(info.backend, device, dtype, _cache_of(configuration), info.num_threads)

    def forget(name: str) -> None:
        if kept is not None:
            kept.leave(name)
        _give_memory_back(device)

    def load(name: str) -> Engine:
        if name not in names:  # a job of before the last start
            raise InvalidParamsError("model", "must be one of the names that GET /v1/models lists", name)
        try:
            backend = one_for_all if kept is None else functools.partial(kept.backend_for, name)
            return _engine(configuration, names[name], device, dtype, info, backend)
        except EngineError:
            raise
        except Exception as error:
            logger.exception("a model cannot be loaded")
            raise ModelLoadError(f"the model {name or configuration.model_name} cannot be loaded") from error

    shelf = Shelf(
        load,
        {name: size_of(model_id) for name, model_id in names.items()} if configuration.models else {},
        budget_bytes=_budget(configuration, device) if configuration.models else None,
        forget=forget,
    )
    shelf.put(DEFAULT, engine)
    return shelf


@functools.cache
def inversions_in(folder: str | None) -> tuple[TextualInversion, ...]:
    """The textual inversions of a folder, as they were at the first call: one prompt then always means the same."""
    if folder is not None and not Path(folder).is_dir():
        logger.error("EMBEDDINGS_DIR is not a folder that can be read: %s", folder)
    return read_textual_inversions(None if folder is None else Path(folder))


def remembered_rows(configuration: Configure, model: DiffusionModel, device_name: str) -> int:
    """Model rows a call: measured once for each model and device, so that its pictures keep their bytes.

    Measured anew after each time that a model was out of memory, it could change, and the last bits with it.
    """
    info = model.info
    if info.device.type == "cpu":
        return CPU_ROWS
    folder = configuration.cache_folder
    path = None if folder is None else Path(folder) / "rows_per_call.json"
    key = f"{info.model_id} {device_name} {info.dtype} {torch.__version__}"
    known: dict[str, int] = {}
    if path is not None and path.is_file():
        try:
            known = {str(name): int(rows) for name, rows in json.loads(path.read_bytes()).items()}
        except (OSError, ValueError, AttributeError, TypeError):
            logger.warning("what was measured before cannot be read, measuring again: %s", path)
    if key not in known:
        known[key] = measure_rows_per_call(model)
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(known, indent=1, sort_keys=True), encoding="utf-8")
            except OSError as error:
                logger.warning("what was measured cannot be kept in %s: %s", path, error.strerror)
    return known[key]


def _engine(
    configuration: Configure,
    model_id: str,
    device: torch.device,
    dtype: torch.dtype,
    info: EngineInfo,
    backend: Callable[[], Backend],
) -> Engine:
    """Load one more model, to run as the first does."""
    folder = locate(model_id)
    cache = _cache_of(configuration)
    if folder.path is None:
        model: DiffusionModel = FakeModel(folder.model_id)
    else:
        from engine.models.stable_diffusion import StableDiffusion  # noqa: PLC0415 - spared where all models are fake

        vae_dtype = None if configuration.vae_dtype == "auto" else getattr(torch, configuration.vae_dtype)
        with torch.inference_mode():
            model = StableDiffusion.load(
                folder, device, dtype, backend(), vae_dtype, inversions_in(configuration.embeddings_folder)
            )
    return Engine(
        model,
        rows_per_call=configuration.rows_per_call or remembered_rows(configuration, model, info.device_name),
        max_images_in_flight=configuration.max_images_in_flight,
        is_reproducible=configuration.reproducible,
        tables=None if cache is None else TableStore(cache / "sampler_tables"),
    )


def _cache_of(configuration: Configure) -> Path | None:
    return None if configuration.cache_folder is None else Path(configuration.cache_folder)


def _budget(configuration: Configure, device: torch.device) -> int | None:
    if configuration.device_memory_bytes is not None:
        return configuration.device_memory_bytes
    if device.type == "cuda":
        return int(_GPU_SHARE * torch.cuda.mem_get_info(device)[1])
    free_bytes = _free_host_bytes()
    return None if free_bytes is None else int(_CPU_SHARE * free_bytes)


def _host_budget(configuration: Configure) -> int:
    if configuration.host_memory_bytes is not None:
        return configuration.host_memory_bytes
    return int(_HOST_SHARE * (_free_host_bytes() or 0))


def _free_host_bytes() -> int | None:
    """None where that is not known."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        available = next(line for line in lines if line.startswith("MemAvailable:"))
        return 1024 * int(available.split()[1])
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def _give_memory_back(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
