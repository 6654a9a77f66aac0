"""Dependencies of routes: settings, defaults, the generator and the API keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from server.access.key_ring import KeyRing
from server.catalogue import Catalogue
from server.config import Settings
from server.generator import ImageGenerator
from server.metrics_readings import Readings
from server.routes.a1111.sessions import Sessions
from server.routes.openai.signed_urls import SignedUrls
from server.schemas.generation import Defaults
from server.thumbnails import Thumbnails
from server.uploads.uploads import Uploads

__all__ = ["Service", "ServiceOf"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What one app is made of."""

    settings: Settings
    generator: ImageGenerator
    defaults: Defaults
    """Of the default model."""
    catalogue: Catalogue
    keys: KeyRing
    started_at: float
    """`time.monotonic()` when the app was made."""
    readings: Readings
    """What `GET /metrics` looks up."""
    thumbnails: Thumbnails
    uploads: Uploads
    signed_urls: SignedUrls
    a1111: Sessions
    """Options and waiting calls of AUTOMATIC1111's API."""


async def _service(request: Request) -> Service:
    # A coroutine, though it waits for nothing: FastAPI sends plain functions to another thread and back.
    service: Service = request.app.state.service
    return service


ServiceOf = Annotated[Service, Depends(_service)]
"""The app's `Service`, as a route's parameter."""
