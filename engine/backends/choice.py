"""Which backend runs the networks: what BACKEND, device and dtype make of it."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from engine.backends.compiled_cache import CACHE_NAME, CompiledCache
from engine.backends.cores import usable_cores
from engine.backends.torch_backend import TorchBackend
from engine.errors import ModelLoadError

if TYPE_CHECKING:
    from engine.backends.base import Backend

__all__ = ["choose_backend"]

logger = logging.getLogger(__name__)


def choose_backend(
    wanted: str,
    device: torch.device,
    dtype: torch.dtype,
    cache_folder: Path | None,
    num_threads: int | None = None,
) -> Backend:
    """Make a backend, and log what was chosen.

    Args:
        wanted: `torch`, `openvino`, or `auto`: OpenVINO where it is installed, on a CPU, in float32.
        device: where the model is to run.
        dtype: what it is to compute with.
        cache_folder: where the engine keeps what it makes once; None: nothing is kept.
        num_threads: on a CPU; None: as many as this process may use.

    Raises:
        ModelLoadError: OpenVINO is wanted and cannot be used.
    """
    if device.type != "cpu":
        if wanted == "openvino":
            raise ModelLoadError(f"BACKEND=openvino runs on CPUs only, not on {device}; set DEVICE=cpu or BACKEND=auto")
        return TorchBackend()
    # Fewer where the operator has said so (OMP_NUM_THREADS). OpenVINO's backend sets it to 1, for torch alone.
    num_threads = num_threads or min(usable_cores(), torch.get_num_threads())
    backend = _openvino(wanted, dtype, num_threads, cache_folder) or TorchBackend(num_threads)
    logger.info("networks run on the CPU by %s, %d threads", backend.name, backend.num_threads)
    return backend


def _openvino(wanted: str, dtype: torch.dtype, num_threads: int, cache_folder: Path | None) -> Backend | None:
    """OpenVINO; None where torch shall do it."""
    if wanted == "torch":
        return None
    if dtype != torch.float32:
        if wanted == "openvino":
            name = str(dtype).removeprefix("torch.")
            raise ModelLoadError(
                f"BACKEND=openvino computes in float32 only, not in {name}: its bfloat16 gives other bytes at every "
                "call; set TORCH_DTYPE=float32 or BACKEND=torch"
            )
        return None
    if importlib.util.find_spec("openvino") is None:
        if wanted == "openvino":
            raise ModelLoadError("BACKEND=openvino, but the package openvino is not installed; pip install openvino")
        logger.info("the package openvino is not installed; with it, pictures on a CPU take about half the time")
        return None
    try:
        from engine.backends.openvino_backend import OpenVinoBackend  # noqa: PLC0415 - a quarter of a second of imports

        cache = CompiledCache(cache_folder / CACHE_NAME) if cache_folder is not None else None
        return OpenVinoBackend(num_threads, cache)
    except (ImportError, OSError, RuntimeError) as error:  # a library is missing, or the processor is too old for it
        if wanted == "openvino":
            raise ModelLoadError(f"BACKEND=openvino, but OpenVINO does not start here: {error}") from error
        logger.warning("OpenVINO does not start here, torch runs the networks: %s", error)
        return None
