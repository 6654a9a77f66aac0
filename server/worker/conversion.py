"""The conversion of a model for OpenVINO at the engine's start: whether it is needed, and what if it fails.

Importing this module imports no torch, so that the conversion can begin before the engine has imported it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from engine.backends.conversion_process import ConversionError, ConversionProcess, is_first_start
from engine.errors import EngineError, ModelLoadError
from engine.models.locate import locate
from server.executors.messages import Configure, Loading, LoadProgress

if TYPE_CHECKING:
    from engine.backends.base import Backend

__all__ = ["PHASE", "begun_conversion", "converted_backend"]

logger = logging.getLogger(__name__)

PHASE: Final = "convert"
"""Of the start; see `LoadProgress`."""


def begun_conversion(configuration: Configure) -> ConversionProcess | None:
    """Begin it where nothing was ever converted here; None where that remains to be seen."""
    cache_folder = _cache_folder(configuration)
    if not is_first_start(configuration.backend, configuration.device, configuration.dtype, cache_folder):
        return None
    try:
        model_folder = locate(configuration.model_id).path
        return None if model_folder is None or cache_folder is None else ConversionProcess(model_folder, cache_folder)
    except (EngineError, OSError):
        return None  # the start, or a second attempt, will say what is wrong


def converted_backend(
    backend: Backend,
    model_folder: Path,
    configuration: Configure,
    begun: ConversionProcess | None,
    report: Callable[[Loading | LoadProgress], None],
    *,
    meanwhile: Callable[[], None],
) -> tuple[Backend, str | None]:
    """A backend that finds the model converted: the chosen one, or torch where the conversion has failed.

    Args:
        backend: the chosen one.
        model_folder: in diffusers layout.
        configuration: of this engine.
        begun: the conversion, if it was begun.
        report: told begin and end of the conversion, if there is one.
        meanwhile: done beside it.

    Returns:
        The backend, and what the operator should know of it.

    Raises:
        ModelLoadError: the model cannot be served, or not by OpenVINO alone.
    """
    cache_folder = _cache_folder(configuration)
    if cache_folder is None or backend.name != "openvino" or (begun is None and _is_converted(backend, model_folder)):
        if begun is not None:
            begun.stop()
        return backend, None  # without a cache it is converted in this process
    began = time.perf_counter()
    report(Loading(PHASE))
    try:
        conversion = begun or ConversionProcess(model_folder, cache_folder, backend.num_threads)
        with conversion:
            meanwhile()
            conversion.wait(lambda: report(Loading(PHASE)))
    except (ConversionError, OSError) as error:
        reason = f"the process that converts the model for OpenVINO {_words(error)}"
        if configuration.backend == "openvino":
            raise ModelLoadError(f"BACKEND=openvino, but {reason}; BACKEND=auto would draw by torch") from error
        warning = f"{reason}: torch runs the networks, at about half the speed and with other last bits"
        logger.warning("%s", warning)
        from engine.backends.torch_backend import TorchBackend  # noqa: PLC0415 - imports torch

        return TorchBackend(backend.num_threads), warning
    finally:
        report(LoadProgress(PHASE, time.perf_counter() - began))
    return backend, None


def _is_converted(backend: Backend, model_folder: Path) -> bool:
    import torch  # noqa: PLC0415 - as the module says

    from engine.backends.openvino_backend import OpenVinoBackend  # noqa: PLC0415 - the same
    from engine.models.parts import network_parts  # noqa: PLC0415 - the same

    assert isinstance(backend, OpenVinoBackend)  # noqa: S101 - by its name
    parts = network_parts(model_folder, torch.float32, torch.device("cpu"))
    return all(backend.is_converted(network, examples) for network, examples in parts.values())


def _cache_folder(configuration: Configure) -> Path | None:
    return Path(configuration.cache_folder) if configuration.cache_folder is not None else None


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, ConversionError) else f"could not be started ({error})"
