"""The Celery app, for `SITE_RUNNER=celery`: `celery -A newdreamflow.config.celery worker --beat`."""

from __future__ import annotations

import os

from celery import Celery

__all__ = ["app"]

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "newdreamflow.config.settings")
app = Celery("newdreamflow")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
