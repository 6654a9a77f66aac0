"""Django app configuration of `dreams`."""

from __future__ import annotations

from django.apps import AppConfig


class DreamsConfig(AppConfig):
    """The app."""

    name = "newdreamflow.dreams"
    label = "dreams"
    verbose_name = "Dreams"

    def ready(self) -> None:
        """Let `manage.py check` look at our settings."""
        from newdreamflow.dreams import checks  # noqa: F401, PLC0415 -- registers itself; models are ready only now
