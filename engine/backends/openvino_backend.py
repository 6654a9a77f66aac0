"""Networks run by OpenVINO, in float32 on a CPU: faster there than torch, above all beside other programs."""

from __future__ import annotations

import gc
import hashlib
import io
import json
import logging
import mmap
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import openvino
import torch

from engine.backends.base import Example, Examples, Function, NetworkFiles
from engine.backends.compiled_cache import CompiledCache
from engine.errors import ModelLoadError

__all__ = ["OpenVinoBackend"]

logger = logging.getLogger(__name__)

DEVICE: Final = "CPU"
CALLS_UNTIL_RELEASE: Final = 64
"""Two pictures of the default request: memory of a larger picture is given back when so many were much smaller."""
MUCH_SMALLER: Final = 0.5

_SOURCES: Final = ("backends/conversion.py", "backends/openvino_backend.py", "networks/*.py")
"""Our own part in a compiled network's bits. By content: a version number would be forgotten one day."""


class OpenVinoBackend:
    """See `Backend`."""

    name = "openvino"

    def __init__(self, num_threads: int, cache: CompiledCache | None) -> None:
        """Start OpenVINO.

        Args:
            num_threads: that compute one call.
            cache: compiled networks that outlive this process; None: each start compiles anew.
        """
        # What is left to torch is so little that other threads, which spin while they wait, would only be in the way.
        torch.set_num_threads(1)
        self._core = openvino.Core()
        self._cache = cache
        self._read: dict[str, memoryview] = {}
        """Origin -> what `is_converted` has found of it, until it is used."""
        self._properties = {
            "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16 where the CPU has it, whose bits do not repeat
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": str(num_threads),  # else one a core of the host, whatever the container may use
            # Else two processes sit on the same cores while others idle.
            "ENABLE_CPU_PINNING": "NO",
            "CPU_DENORMALS_OPTIMIZATION": "YES",  # numbers below 1e-38 as zero: else each takes many times longer
        }
        self._num_threads = num_threads

    @property
    def num_threads(self) -> int:
        """See `Backend.num_threads`."""
        return self._num_threads

    def functions(self, network: NetworkFiles, examples: Examples) -> Mapping[str, Function]:
        """See `Backend.functions`. Weights are read only if one of them is not in the cache."""
        blobs = self._blobs(network, examples)
        return {method: self._function(blobs[method]) for method in examples}

    def convert(self, network: NetworkFiles, examples: Examples) -> None:
        """Put into the cache what is missing there.

        Raises:
            ModelLoadError: the file cannot be served.
        """
        self._blobs(network, examples)

    def is_converted(self, network: NetworkFiles, examples: Examples) -> bool:
        """Whether `functions` would find all of them in the cache.

        Raises:
            ModelLoadError: the weights cannot be read.
        """
        origins = self._origins(network, self._digest_of(network), examples)
        return None not in [self._cached(origin) for origin in origins.values()]

    def _blobs(self, network: NetworkFiles, examples: Examples) -> dict[str, memoryview]:
        """Method -> its network as OpenVINO exports it; what is not in the cache is compiled and written to it."""
        began = time.perf_counter()
        weights = self._digest_of(network)
        origins = self._origins(network, weights, examples)
        found = {method: self._cached(origin) for method, origin in origins.items()}
        blobs = {method: blob for method, blob in found.items() if blob is not None}
        missing = [method for method in examples if method not in blobs]
        if missing:
            logger.info("compiling %s for OpenVINO, once: %s", network.name, ", ".join(missing))
            module = network.load()
            if self._digest_of(network) != weights:
                raise ModelLoadError(f"{network.weights} was changed while it was read; start again")
            for method in missing:
                logger.debug("compiling %s.%s", network.name, method)
                blobs[method] = self._compiled(module, method, examples[method](module))
                if self._cache is not None:
                    self._cache.write(origins[method], blobs[method])
            del module
            gc.collect()
            logger.info("compiled %s in %.1f s", network.name, time.perf_counter() - began)
        for origin in origins.values():
            self._read.pop(origin, None)
        return blobs

    def _digest_of(self, network: NetworkFiles) -> str:
        if self._cache is None:
            return ""
        try:
            weights = self._cache.digest_of(network.weights)
            changes = [(self._cache.digest_of(path), share) for path, share in network.changes]
            return json.dumps([weights, *changes]) if changes else weights
        except OSError as error:
            raise ModelLoadError(f"{network.weights} is damaged or not readable: {error.strerror}") from error

    def _origins(self, network: NetworkFiles, weights: str, examples: Examples) -> dict[str, str]:
        return {method: self._origin(network, weights, method) for method in examples}

    def _cached(self, origin: str) -> memoryview | None:
        """From the cache, where it is: read, and its digest computed, once."""
        if origin not in self._read and self._cache is not None:
            blob = self._cache.read(origin)
            if blob is not None:
                self._read[origin] = blob
        return self._read.get(origin)

    def _compiled(self, module: torch.nn.Module, method: str, example: Example) -> memoryview:
        from engine.backends.conversion import converted  # noqa: PLC0415 - with a warm cache nothing is converted

        compiled = self._core.compile_model(converted(module, method, example), DEVICE, self._properties)
        stream = io.BytesIO()
        compiled.export_model(stream)
        return stream.getbuffer()

    def _function(self, blob: memoryview) -> Function:
        """Always from the exported form, even where it has just been made: a warm cache gives the same bits."""
        tensor = openvino.Tensor(np.frombuffer(blob, dtype=np.uint8), shared_memory=True)
        return _CompiledFunction(self._core.import_model(tensor, DEVICE, self._properties), blob)

    def _origin(self, network: NetworkFiles, weights: str, method: str) -> str:
        """All that a compiled network's bits depend on, as JSON: another origin is another file."""
        return json.dumps(
            {
                "network": network.name,
                "method": method,
                "config": dict(network.config),
                "weights": weights,
                "engine": _engine_digest(),
                "openvino": openvino.get_version(),
                "torch": torch.__version__,
                "cpu": self._core.get_property(DEVICE, "FULL_DEVICE_NAME"),
                "capabilities": self._core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES"),
                "machine": platform.machine(),
                "properties": self._properties,
            },
            sort_keys=True,
        )


class _CompiledFunction:
    """A compiled network, and the memory its weights lie in."""

    def __init__(self, compiled: openvino.CompiledModel, blob: memoryview) -> None:
        self._compiled = compiled
        self._request = compiled.create_infer_request()
        self._blob = blob  # OpenVINO reads weights from it and does not keep it alive
        self._last = 0
        """Numbers in the output of the last call."""
        self._largest = 0
        """Numbers in the output of the largest call since memory was last given back."""
        self._smaller_calls = 0

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        # Named for as long as the call takes: OpenVINO reads their memory and does not keep it alive.
        arrays = [tensor.contiguous().numpy() for tensor in inputs]
        for index, array in enumerate(arrays):
            self._request.set_input_tensor(index, openvino.Tensor(array, shared_memory=True))
        # Not by `infer`: where there is one thread, 2026.4 swallows its own errors there, and gives whatever lies in
        # the output's memory, which may be another picture.
        self._request.start_async()
        self._request.wait()
        result = torch.from_numpy(self._request.get_output_tensor().data.copy())
        self._give_back_memory(result.numel())
        return result

    def _give_back_memory(self, size: int) -> None:
        """What OpenVINO keeps for ever and seldom needs: memory of the largest call, and weights as in the file.

        At the first call of a size it arranges weights for the processor, and reads only those afterwards. Pages of
        the file that are let go of come back from it where they are needed.
        """
        if size != self._last and isinstance(self._blob.obj, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            self._blob.obj.madvise(mmap.MADV_DONTNEED)
        self._last = size
        if size >= MUCH_SMALLER * self._largest:
            self._largest, self._smaller_calls = max(size, self._largest), 0
            return
        self._smaller_calls += 1
        if self._smaller_calls >= CALLS_UNTIL_RELEASE:
            self._compiled.release_memory()
            self._largest, self._smaller_calls = size, 0


def _engine_digest() -> str:
    folder = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for pattern in _SOURCES:
        for path in sorted(folder.glob(pattern)):
            digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()
