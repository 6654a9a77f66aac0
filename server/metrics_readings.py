"""What is looked up when somebody asks for `GET /metrics`: queue, engine, memory, disk. Counts are in `metrics.py`."""

from __future__ import annotations

import asyncio
import platform
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, TypeVar

from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from server.generator import ImageGenerator

__all__ = ["Readings"]

_Label = TypeVar("_Label", bound=str)

_STATUSES: Final = ("loading", "healthy", "degraded", "failed", "draining")
"""What `/health` can say."""


class Readings:
    """Looks at one generator. Belongs to the event loop's thread."""

    def __init__(self, generator: ImageGenerator, *, folder: Path, model_id: str, version: str) -> None:
        self._generator = generator
        self._folder = folder
        self._model_id = model_id
        self._version = version
        self._processes = (
            ProcessCollector(registry=None),
            ProcessCollector(
                "semantic_bit_engine", pid=lambda: generator.executor.vitals.process_id or "none", registry=None
            ),
        )

    async def look(self, status: str) -> list[Metric]:
        """Everything, now.

        Args:
            status: what `/health` says.
        """
        disk = await asyncio.to_thread(_disk_bytes, self._folder)
        return [
            *self._what_it_is(status),
            *self._queue(),
            *self._engine(),
            *self._device_memory(),
            _gauge("disk_free_bytes", "Free bytes where jobs and pictures are kept.", disk and disk[0]),
            _gauge("disk_size_bytes", "Size of that file system.", disk and disk[1]),
            *(metric for process in self._processes for metric in process.collect()),
        ]

    def _what_it_is(self, status: str) -> Iterable[Metric]:
        info = self._generator.executor.info
        is_known = info is not None and self._generator.executor.state == "ready"
        yield _gauge("ready", "1 if a request sent now would be drawn soon, as at /readyz.", float(status == "healthy"))
        yield _labelled(
            GaugeMetricFamily("semantic_bit_status", "1 for the word that /health says.", labels=["status"]),
            {word: float(word == status) for word in _STATUSES},
        )
        build = GaugeMetricFamily("semantic_bit_build_info", "What runs; always 1.", labels=["version", "python"])
        build.add_metric([self._version, platform.python_version()], 1)
        yield build
        engine = GaugeMetricFamily(
            "semantic_bit_engine_info",
            "What draws; 1 while it is loaded.",
            labels=["model", "device", "device_name", "dtype"],
        )
        if info is not None and is_known:
            engine.add_metric([self._model_id, info.device, info.device_name, info.dtype], 1)
        yield engine

    def _queue(self) -> Iterable[Metric]:
        generator, info = self._generator, self._generator.executor.info
        yield _gauge("queue_jobs", "Jobs that wait their turn.", generator.num_waiting)
        yield _gauge("queue_jobs_max", "Jobs that may wait.", generator.max_waiting)
        yield _gauge("queue_oldest_seconds", "How long the job has waited that has waited longest.", generator.oldest_s)
        yield _gauge("jobs_running", "Jobs that are being drawn.", generator.num_running)
        yield _gauge("images_in_flight", "Pictures that are being drawn.", generator.num_images_in_flight)
        most = None if info is None else info.max_images_in_flight
        yield _gauge("images_in_flight_max", "Pictures that are drawn together at most.", most)

    def _engine(self) -> Iterable[Metric]:
        executor = self._generator.executor
        vitals, worked_at = executor.vitals, executor.work_times.last_at
        yield _labelled(
            CounterMetricFamily("semantic_bit_engine_restarts", "Engines that were replaced.", labels=["reason"]),
            vitals.restarts,
        )
        yield _labelled(
            CounterMetricFamily(
                "semantic_bit_engine_out_of_memory", "Times that the device had no room, by what for.", labels=["kind"]
            ),
            vitals.out_of_memory,
        )
        since_s = None if worked_at is None else time.monotonic() - worked_at
        yield _gauge("engine_since_work_item_seconds", "Since the engine last ended a work item.", since_s)
        yield _gauge("engine_silence_seconds", "Since its last sign of life; 0 while loading.", executor.silence_s)
        yield _gauge("engine_silence_max_seconds", "Silence after which it is replaced.", executor.allowed_silence_s)

    def _device_memory(self) -> Iterable[Metric]:
        memory = self._generator.executor.vitals.device_memory
        for name, documentation in (
            ("total", "Memory of the GPU."),
            ("free", "GPU memory that no process has taken."),
            ("reserved", "GPU memory that the engine has taken, to use it again."),
            ("allocated", "GPU memory of the engine that holds something."),
        ):
            value = None if memory is None else getattr(memory, f"{name}_bytes")
            yield _gauge(f"device_memory_{name}_bytes", documentation, value)


def _gauge(name: str, documentation: str, value: float | None) -> GaugeMetricFamily:
    """A gauge, without a value while that is unknown."""
    return GaugeMetricFamily(f"semantic_bit_{name}", documentation, value=value)


def _labelled(family: GaugeMetricFamily | CounterMetricFamily, values: Mapping[_Label, float]) -> Metric:
    for label, value in values.items():
        family.add_metric([label], value)
    return family


def _disk_bytes(folder: Path) -> tuple[int, int] | None:
    """Free for this user, and in all; None where the folder cannot be asked."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    return usage.free, usage.total
