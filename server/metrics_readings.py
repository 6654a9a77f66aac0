"""Prometheus gauges, read at each `GET /metrics`: queue, engine, memory, disk. Counters: `metrics.py`."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Mapping
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

    def __init__(self, generator: ImageGenerator, *, model_id: str, version: str) -> None:
        self._generator = generator
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
        disk = await self._generator.storage.disk.state()
        return [
            *self._what_it_is(status),
            *self._queue(),
            *self._engine(),
            *self._device_memory(),
            *self._engines(),
            _gauge("disk_free_bytes", "Free bytes on the file system of DATA_DIR.", disk.free_bytes),
            _gauge("disk_size_bytes", "Size of the file system of DATA_DIR.", disk.total_bytes),
            *(metric for process in self._processes for metric in process.collect()),
        ]

    def _what_it_is(self, status: str) -> Iterable[Metric]:
        info = self._generator.executor.info
        is_known = info is not None and self._generator.executor.state == "ready"
        yield _gauge("ready", "1 if the server is ready, as at /readyz.", float(status == "healthy"))
        yield _labelled(
            GaugeMetricFamily("semantic_bit_status", "1 for the current status of /health.", labels=["status"]),
            {word: float(word == status) for word in _STATUSES},
        )
        build = GaugeMetricFamily(
            "semantic_bit_build_info", "Version of the server and of Python; always 1.", labels=["version", "python"]
        )
        build.add_metric([self._version, platform.python_version()], 1)
        yield build
        engine = GaugeMetricFamily(
            "semantic_bit_engine_info",
            "Model and device; 1 while the model is loaded.",
            labels=["model", "device", "device_name", "dtype", "backend"],
        )
        if info is not None and is_known:
            engine.add_metric([self._model_id, info.device, info.device_name, info.dtype, info.backend], 1)
        yield engine

    def _queue(self) -> Iterable[Metric]:
        generator, info = self._generator, self._generator.executor.info
        yield _gauge("queue_jobs", "Waiting jobs.", generator.dispatcher.num_waiting)
        yield _gauge("queue_jobs_max", "Limit of waiting jobs (MAX_QUEUED_REQUESTS).", generator.admission.max_waiting)
        yield _gauge(
            "queue_oldest_seconds",
            "Age of the oldest waiting job.",
            generator.dispatcher.oldest_s(),
        )
        yield _gauge("jobs_running", "Running jobs.", generator.dispatcher.num_running)
        yield _gauge("images_in_flight", "Pictures being drawn.", generator.dispatcher.num_images_in_flight)
        most = None if info is None else info.max_images_in_flight
        yield _gauge("images_in_flight_max", "Limit of pictures drawn at the same time.", most)

    def _engine(self) -> Iterable[Metric]:
        executor = self._generator.executor
        vitals, worked_at = executor.vitals, executor.last_work_at
        yield _labelled(
            CounterMetricFamily(
                "semantic_bit_engine_restarts", "Restarts of the engine process, by reason.", labels=["reason"]
            ),
            vitals.restarts,
        )
        yield _labelled(
            CounterMetricFamily(
                "semantic_bit_engine_out_of_memory", "Out-of-memory events, by kind of work.", labels=["kind"]
            ),
            vitals.out_of_memory,
        )
        since_s = None if worked_at is None else time.monotonic() - worked_at
        yield _gauge("engine_since_work_item_seconds", "Time since the engine last finished a work item.", since_s)
        yield _gauge(
            "engine_silence_seconds", "Time since the engine's last message; 0 while loading.", executor.silence_s
        )
        yield _gauge(
            "engine_silence_max_seconds", "Silence after which the engine is restarted.", executor.allowed_silence_s
        )

    def _engines(self) -> Iterable[Metric]:
        """Of each engine: its name, state, pictures and places."""
        up = GaugeMetricFamily("semantic_bit_pool_engine_ready", "1 if this engine draws.", labels=["engine"])
        images = GaugeMetricFamily(
            "semantic_bit_pool_engine_images_in_flight", "Pictures that this engine draws.", labels=["engine"]
        )
        places = GaugeMetricFamily(
            "semantic_bit_pool_engine_images_in_flight_max", "Limit of pictures that it draws.", labels=["engine"]
        )
        for seat in self._generator.executor.seats:
            info = seat.executor.info
            up.add_metric([seat.name], float(seat.executor.state == "ready" and not seat.is_paused))
            images.add_metric([seat.name], seat.num_images)
            places.add_metric([seat.name], 0 if info is None else info.max_images_in_flight)
        yield from (up, images, places)
        yield _gauge(
            "backlog_seconds",
            "Time until everything that waits and runs now will be done; for autoscaling.",
            self._generator.estimates.backlog_s(),
        )

    def _device_memory(self) -> Iterable[Metric]:
        memory = self._generator.executor.vitals.device_memory
        for name, documentation in (
            ("total", "Total GPU memory."),
            ("free", "GPU memory not used by any process."),
            ("reserved", "GPU memory reserved by the engine's allocator."),
            ("allocated", "GPU memory allocated by the engine."),
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
