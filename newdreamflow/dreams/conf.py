"""Settings of this app: names in Django's settings, units, defaults."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal

from django.conf import settings

__all__ = ["dreams_settings"]


class _Setting:
    """One setting, read from Django's settings each time, so that a test can change it."""

    def __init__(self, default: object) -> None:
        self._default = default

    def __set_name__(self, _owner: type, name: str) -> None:
        self._name = name

    def __get__(self, _instance: object, _owner: type | None = None) -> Any:  # noqa: ANN401 -- of the default's type
        return getattr(settings, self._name, self._default)


class _DreamsSettings:
    """Read as attributes."""

    if TYPE_CHECKING:
        GPU_SERVER_URL: str
        GPU_SERVER_API_KEY: str
        DREAMS_RUNNER: Literal["database", "celery"]
        DREAMS_PRICE_PER_WORK_UNIT: Decimal
        DREAMS_STARTING_BUDGET: Decimal
        DREAMS_MAX_UNFINISHED: int
        DREAMS_LEASE_S: float
        DREAMS_GIVE_UP_AFTER_S: float
        DREAMS_LONGEST_PAUSE_S: float
        DREAMS_DEFAULT_SIZE: int
        DREAMS_MODELS: Sequence[str]
    else:
        GPU_SERVER_URL = _Setting("http://127.0.0.1:8000")
        """Where the GPU server answers."""
        GPU_SERVER_API_KEY = _Setting("")
        """Its API key; empty where it wants none."""
        DREAMS_RUNNER = _Setting("database")
        """Who advances dreams: `database` (`manage.py dreamworker`) or `celery`."""
        DREAMS_PRICE_PER_WORK_UNIT = _Setting(Decimal("1.00"))
        """Credits for one work unit: 28 guided steps at 512x512."""
        DREAMS_STARTING_BUDGET = _Setting(Decimal("100.00"))
        """Credits that a new user is given."""
        DREAMS_MAX_UNFINISHED = _Setting(20)
        """Dreams that one user may have waiting or being drawn."""
        DREAMS_LEASE_S = _Setting(150.0)
        """Seconds of a lease on a dream, renewed before each picture. Longer than one answer may take: 120."""
        DREAMS_GIVE_UP_AFTER_S = _Setting(86400.0)
        """Seconds after which a dream that could not be drawn fails."""
        DREAMS_LONGEST_PAUSE_S = _Setting(60.0)
        """Seconds between two tries, at most."""
        DREAMS_DEFAULT_SIZE = _Setting(512)
        """Pixels of either side that the form begins with."""
        DREAMS_MODELS = _Setting(())
        """Models that users may choose from, as the GPU server lists them, the usual one first; empty: its default."""


dreams_settings: Final = _DreamsSettings()
