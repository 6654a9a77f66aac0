"""`/healthz`: the site's health check. For monitoring: any host name, also plain HTTP."""

from __future__ import annotations

import logging
from collections.abc import Callable
from http import HTTPStatus

from django.db import Error, connection
from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase

__all__ = ["Health"]

logger = logging.getLogger(__name__)


class Health:
    """200 `{"status": "ok"}` while the database answers, 503 `{"status": "database"}` while it does not. No more."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Answer."""
        if request.path_info != "/healthz":
            return self._get_response(request)
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 FROM django_migrations LIMIT 1")
        except Error as error:
            logger.warning("the database does not respond: %s", type(error).__name__)
            response = JsonResponse({"status": "database"}, status=HTTPStatus.SERVICE_UNAVAILABLE)
        else:
            response = JsonResponse({"status": "ok"})
        response["Cache-Control"] = "no-store"
        return response
