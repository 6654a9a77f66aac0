"""The door of the APIs of other programs: pages of other sites stay outside, and odd query parameters may come in."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

from fastapi import Depends, Request

from server.access.foreign_pages import refuse_foreign_page
from server.routes.dependencies import Service
from server.routes.upload_route import UploadRoute
from server.worker.upload_messages import Layout

__all__ = ["DOOR", "CompatRoute", "FormRoute"]


class CompatRoute(UploadRoute):
    """A route whose pictures come in JSON, and whose callers may send query parameters that it does not read."""

    ignores_unknown_query: ClassVar[bool] = True
    layouts: ClassVar[Mapping[str, Layout]] = MappingProxyType({})


class FormRoute(CompatRoute):
    """The same, which also takes a form with a part for each field."""

    layouts: ClassVar[Mapping[str, Layout]] = MappingProxyType({"multipart/form-data": "flat"})


async def _refuse_foreign_pages(request: Request) -> None:
    """Refuse what a browser sends for any page without asking first: all but JSON.

    Raises:
        ForeignPageError: a page of another origin lets it be sent.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.method == "POST" and media_type != "application/json":
        service: Service = request.app.state.service
        refuse_foreign_page(request.headers, service.settings.cors_origins)


DOOR = [Depends(_refuse_foreign_pages)]
"""Dependencies of every router of another program's API."""
