"""`GET /metrics` for Prometheus. docs/telemetry.md explains the metrics."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from fastapi import APIRouter, Header, Response
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from server.access.scopes import needs
from server.errors import NotAcceptableError
from server.routes.dependencies import ServiceOf
from server.routes.health import status_of
from server.routes.negotiation import preferred

__all__ = ["router"]

_TEXT = "text/plain"
_OPENMETRICS = "application/openmetrics-text"
_OFFERS = (_TEXT, _OPENMETRICS)

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    dependencies=[needs("metrics")],
    responses={200: {"description": "Text", "content": {offer: {"schema": {"type": "string"}} for offer in _OFFERS}}},
)
async def metrics(
    service: ServiceOf, accept: Annotated[str | None, Header(include_in_schema=False)] = None
) -> Response:
    """Prometheus' text format, or OpenMetrics where `Accept` prefers that."""
    # Not the library's own choice: that repeats a version and an escaping of the caller's.
    offer = preferred(accept, _OFFERS)
    if offer is None:
        raise NotAcceptableError(f"the header Accept must allow one of {', '.join(_OFFERS)} for this request")
    status, _ = await status_of(service)
    counted = service.generator.metrics
    found = _Found([*counted.registry.collect(), *counted.recent(), *await service.readings.look(status)])
    if offer == _OPENMETRICS:
        text: bytes = openmetrics.generate_latest(found)  # type: ignore[no-untyped-call]  # the library forgot its types
        return Response(text, media_type=openmetrics.CONTENT_TYPE_LATEST)
    return Response(generate_latest(found), media_type=CONTENT_TYPE_PLAIN_0_0_4)


class _Found(Collector):
    """What was found, as the library wants it."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics
