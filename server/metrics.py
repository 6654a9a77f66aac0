"""Prometheus counters and histograms of `GET /metrics`. Every name is explained in docs/telemetry.md.

What can be looked up whenever somebody asks (queue depth, memory) is not counted: see `metrics_readings.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric

from engine.params import GenerationParams

__all__ = ["Metrics"]

_HTTP_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Methods that are told apart; a caller can invent as many others as it likes."""

_TERMINAL: Final = ("cancelled", "dead", "done", "failed")
"""How a job can end: `TERMINAL` of `store/record.py`. This module imports nothing of the server."""
_LIMITS: Final = ("requests", "work-units", "jobs", "concurrent-requests")
"""Those of `access/rate_limits.py`."""
_RECENT_JOBS: Final = 200
"""Jobs that the averages of late are made from: a few minutes of a busy server, a few days of an idle one."""
_MOST_EXACT_ROWS: Final = 16

_WORK_SECONDS: Final = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2, 5, 15)
_JOB_SECONDS: Final = (0.25, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 45, 60, 120, 300, 900, 3600)
_WAIT_SECONDS: Final = (0.01, 0.1, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 900, 3600)
_HTTP_SECONDS: Final = (0.0025, 0.01, 0.05, 0.25, 1, 5, 30)
_COMMIT_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)


class Metrics:
    """The counters and histograms of one app, in a registry of their own. Belongs to the event loop's thread."""

    def __init__(self) -> None:
        # When a counter began, as a second series beside each: nobody reads them, and they double the answer.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # the library forgot its types
        self.registry = CollectorRegistry()
        self._recent_seconds: deque[float] = deque(maxlen=_RECENT_JOBS)
        self._recent_successes: deque[bool] = deque(maxlen=_RECENT_JOBS)
        self._accepted = self._counter("jobs_accepted", "Jobs accepted and stored.")
        self._jobs = self._counter("jobs", "Jobs that have ended, by final status.", "status")
        self._images = self._counter(
            "images", "Pictures of jobs that have ended, by final status of the job.", "status"
        )
        self._failures = self._counter("job_failures", "Jobs that failed or died, by error code.", "code")
        self._work_units = self._counter("work_units", "Work units of jobs that are done; 28 steps at 512x512 are 1.")
        self._waits = self._histogram(
            "queue_wait_seconds", "Time from a job's acceptance to the start of its first attempt.", _WAIT_SECONDS
        )
        self._generations = self._histogram(
            "generation_seconds", "Time from a job's acceptance to its pictures being stored.", _JOB_SECONDS
        )
        self._work_items = self._histogram(
            "work_item_seconds",
            "Duration of the engine's work items, by kind and model rows.",
            _WORK_SECONDS,
            "kind",
            "rows",
        )
        self._commits = self._histogram(
            "store_commit_seconds", "Duration of the job store's transactions, disk writes included.", _COMMIT_SECONDS
        )
        self._requests = self._counter(
            "http_requests", "Finished HTTP requests, by route template.", "route", "method", "status"
        )
        self._request_seconds = self._histogram(
            "http_request_seconds",
            "Time from a request to the start of its response.",
            _HTTP_SECONDS,
            "route",
            "method",
        )
        self._requests_in_progress = Gauge(
            "semantic_bit_http_requests_in_progress",
            "HTTP requests in progress, event streams included.",
            registry=self.registry,
        )
        self._errors = self._counter("errors", "Error responses (problem documents), by code.", "code")
        self._rate_limited = self._counter("rate_limited", "Requests refused by a rate limit, by limit.", "limit")
        for status in _TERMINAL:
            self._jobs.labels(status)
            self._images.labels(status)
        for limit in _LIMITS:
            self._rate_limited.labels(limit)

    # --- jobs ---------------------------------------------------------------------------------------------------------

    def job_accepted(self) -> None:
        """A job has been written down."""
        self._accepted.inc()

    def job_began(self, wait_s: float) -> None:
        """A job's first attempt begins, so long after it was accepted."""
        self._waits.observe(wait_s)

    def job_ended(self, status: str, params: GenerationParams, seconds: float, failure_code: str | None) -> None:
        """A job has reached its terminal state, so long after it was accepted.

        Args:
            status: `done`, `failed`, `dead` or `cancelled`.
            params: what was to be drawn.
            seconds: since it was accepted.
            failure_code: why there are no pictures; None if there are.
        """
        self._jobs.labels(status).inc()
        self._images.labels(status).inc(params.num_images)
        if status == "done":
            self._work_units.inc(params.work_units)
            self._generations.observe(seconds)
            self._recent_seconds.append(seconds)
        elif status != "cancelled" and failure_code is not None:
            self._failures.labels(failure_code).inc()
        if status != "cancelled":
            self._recent_successes.append(status == "done")

    def work_done(self, kind: str, rows: int, seconds: float) -> None:
        """The engine has ended a work item of so many model rows."""
        self._work_items.labels(kind, _rows_label(rows)).observe(seconds)

    def committed(self, seconds: float) -> None:
        """The job store has ended a transaction."""
        self._commits.observe(seconds)

    # --- requests -----------------------------------------------------------------------------------------------------

    def request_began(self) -> None:
        """A request has come in."""
        self._requests_in_progress.inc()

    def request_ended(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request is over.

        Args:
            route: the template of its route, or a word for those that have none; never a path.
            method: as it was sent.
            status: of the answer; 0 if there was none.
            seconds: until the answer began.
        """
        known_method = method if method in _HTTP_METHODS else "other"
        self._requests_in_progress.dec()
        self._requests.labels(route, known_method, status).inc()
        self._request_seconds.labels(route, known_method).observe(seconds)

    def error_answered(self, code: str) -> None:
        """A request was answered with the problem document of this code."""
        self._errors.labels(code).inc()

    def rate_limited(self, limit: str) -> None:
        """A request was refused because of this limit."""
        self._rate_limited.labels(limit).inc()

    # --- for people without Prometheus --------------------------------------------------------------------------------

    def recent(self) -> Iterable[Metric]:
        """Average, quantiles and success rate of the latest jobs, ready to be read."""
        statistics = GaugeMetricFamily(
            "semantic_bit_recent_generation_seconds",
            f"Of the latest {_RECENT_JOBS} jobs that are done: average and quantiles of generation_seconds.",
            labels=["statistic"],
        )
        if self._recent_seconds:
            ordered = sorted(self._recent_seconds)
            statistics.add_metric(["average"], sum(ordered) / len(ordered))
            for percent in (50, 95, 99):
                statistics.add_metric([f"p{percent}"], ordered[max(0, -(-len(ordered) * percent // 100) - 1)])
        success = GaugeMetricFamily(
            "semantic_bit_recent_success_ratio",
            f"Share that is done of the latest {_RECENT_JOBS} jobs that ended and were not cancelled.",
        )
        if self._recent_successes:
            success.add_metric([], sum(self._recent_successes) / len(self._recent_successes))
        yield statistics
        yield success

    # --- making -------------------------------------------------------------------------------------------------------

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"semantic_bit_{name}", documentation, labels, registry=self.registry)

    def _histogram(self, name: str, documentation: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"semantic_bit_{name}", documentation, labels, buckets=buckets, registry=self.registry)


def _rows_label(rows: int) -> str:
    """Model rows as a label of few values: exact where they matter, beyond that the next power of two."""
    return str(rows if rows <= _MOST_EXACT_ROWS else 1 << (rows - 1).bit_length())
