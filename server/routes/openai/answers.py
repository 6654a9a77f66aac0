"""Answers of the Images API: a picture as base64 or as a signed address, never as both."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse

from server.routes.dependencies import Service
from server.routes.picture_headers import picture_headers
from server.store.record import JobRecord, Picture

__all__ = ["answer", "size_of"]


def answer(
    request: Request, service: Service, record: JobRecord, images: Sequence[Picture], *, sends_urls: bool
) -> JSONResponse:
    """The finished pictures of a request.

    Args:
        request: whose host is that of the addresses, unless `PUBLIC_URL` is set.
        service: what signs them.
        record: the job.
        images: its pictures.
        sends_urls: whether the answer has addresses. Both together would show twice what some programs draw once.
    """
    data: list[dict[str, str]] = [
        {"url": _base_of(request, service) + service.signed_urls.path(record.id, index, record.new.output_format)}
        if sends_urls
        else {"b64_json": base64.b64encode(image.data).decode()}
        for index, image in enumerate(images)
    ]
    content: dict[str, Any] = {
        "created": int(time.time()),
        "data": data,
        "output_format": record.new.output_format,
        "size": size_of(record),
        "quality": "auto",
        "background": "opaque",
    }
    return JSONResponse(content, headers=picture_headers(request, record, service))


def size_of(record: JobRecord) -> str:
    """`WIDTHxHEIGHT` of the finished pictures."""
    height, width = record.new.params.answer_size
    return f"{width}x{height}"


def _base_of(request: Request, service: Service) -> str:
    if service.settings.public_url:
        return service.settings.public_url
    return f"{request.url.scheme}://{request.headers.get('host', request.url.netloc)}"
