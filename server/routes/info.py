"""`GET /`: server, model, defaults and limits as JSON, or the drawing page; and the page `/docs`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Header, Response
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict
from starlette.types import Receive, Scope, Send

from engine.params import LIMITS
from engine.samplers import SAMPLERS
from server.routes.dependencies import Service, ServiceOf
from server.routes.negotiation import preferred
from server.schemas.generation import MAX_NUM_IMAGES, MEDIA_TYPES

__all__ = ["NAME", "STATIC_FOLDER", "VERSION", "OwnFiles", "router"]

NAME = "Semantic Bit GPU server"
VERSION = "0.1.0"

STATIC_FOLDER = Path(__file__).resolve().parent.parent / "static"

_DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Swagger UI sets styles inline; everything else comes from this server or not at all."""

_PAGE_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""Nothing inline; pictures are fetched (`blob:`) and previews come inside events (`data:`)."""


class OwnFiles(StaticFiles):
    """Files that browsers keep, but ask about each time: after an upgrade no page runs old and new scripts together."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        await super().__call__(_without_range(scope), receive, send)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file, or 304."""
        response = await super().get_response(path, scope)
        response.headers.update(_FILE_HEADERS)
        return response


class OwnPage(FileResponse):
    """One such file, in an answer of a route."""

    def __init__(self, path: Path, headers: Mapping[str, str]) -> None:
        super().__init__(path, headers={**_FILE_HEADERS, **headers})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        await super().__call__(_without_range(scope), receive, send)


_FILE_HEADERS = {"Cache-Control": "no-cache", "Accept-Ranges": "none"}


def _without_range(scope: Scope) -> Scope:
    # Parts are for large files, and Starlette answers a range that it cannot read with an error that is no problem.
    return {**scope, "headers": [(name, value) for name, value in scope["headers"] if name != b"range"]}


class InfoDefaults(BaseModel):
    """Values for fields that a request leaves out."""

    num_inference_steps: int
    guidance_scale: float
    height: int
    width: int
    sampler: str
    noise_schedule: str
    output_format: str
    num_images: int


class InfoLimits(BaseModel):
    """Limits of a request."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    max_prompt_characters: int
    max_num_inference_steps: int
    max_guidance_scale: float
    min_size: int
    """Pixels, for width and height."""
    max_size: int
    """Pixels, for width and height."""
    size_multiple: int
    """Width and height must be multiples of it: the pixels per latent of the model."""
    max_image_size: int
    """Pixels, for width and height of a picture that comes with a request."""
    max_mask_blur: int
    max_mask_padding: int
    max_seed: int
    max_num_images: int
    max_queued_requests: int
    request_timeout_s: float


class Info(BaseModel):
    """Overview of the API."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: str
    version: str
    model: str
    links: dict[str, str]
    defaults: InfoDefaults
    limits: InfoLimits
    samplers: list[str]
    """By name; details at `GET /v1/samplers`."""
    output_formats: list[str]


router = APIRouter(tags=["about"])


@router.get(
    "/",
    summary="Server, model, defaults and limits",
    response_model=Info,
    responses={200: {"content": {"text/html": {"schema": {"type": "string"}}}}},
)
async def info(
    service: ServiceOf, response: Response, accept: Annotated[str | None, Header(include_in_schema=False)] = None
) -> Info | FileResponse:
    """Name, model, links, defaults, limits and samplers; for a browser, which prefers `text/html`, the drawing page."""
    headers = {"Vary": "Accept", "Cache-Control": "no-cache"}
    if preferred(accept, ("application/json", "text/html")) == "text/html":
        headers["Content-Security-Policy"] = _PAGE_POLICY
        return OwnPage(STATIC_FOLDER / "app" / "index.html", headers)
    response.headers.update(headers)
    return _info(service)


def _info(service: Service) -> Info:
    return Info(
        name=NAME,
        version=VERSION,
        model=service.settings.model_name,
        links={
            "generate": "/generate",
            "jobs": "/v1/jobs",
            "queue": "/v1/queue",
            "samplers": "/v1/samplers",
            "health": "/health",
            "livez": "/livez",
            "readyz": "/readyz",
            "docs": "/docs",
            "openapi": "/openapi.json",
        },
        defaults=InfoDefaults(**asdict(service.defaults), output_format="png", num_images=1),
        limits=InfoLimits(
            **{**asdict(LIMITS), "max_num_images": MAX_NUM_IMAGES},
            size_multiple=service.defaults.pixels_per_latent,
            max_queued_requests=service.settings.max_queued_requests,
            request_timeout_s=service.settings.request_timeout,
        ),
        samplers=list(SAMPLERS),
        output_formats=list(MEDIA_TYPES.values()),
    )


@router.get("/docs", include_in_schema=False)
async def docs() -> FileResponse:
    """The API's pages, made of our own files: they work without any network."""
    return OwnPage(STATIC_FOLDER / "docs.html", {"Content-Security-Policy": _DOCS_POLICY})
