"""Reads the site's environment variables, and `.env` beneath them: one function a kind of value."""

from __future__ import annotations

import ipaddress
import os
import secrets
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured
from dotenv import dotenv_values

__all__ = ["Environment", "kept_secret"]


class Environment:
    """The values of one process. An empty value means unset, as for the GPU server."""

    def __init__(self, env_file: Path, environ: Mapping[str, str] = os.environ) -> None:
        of_file = (
            {name: value for name, value in dotenv_values(env_file).items() if value} if env_file.is_file() else {}
        )
        self._values = of_file | {name: value for name, value in environ.items() if value}

    def text(self, name: str, default: str = "") -> str:
        """Any text."""
        return self._values.get(name, default)

    def flag(self, name: str, *, default: bool) -> bool:
        """`1`, `true`, `yes`, `on`, or their opposites."""
        word = self.text(name, str(default)).strip().lower()
        if word in {"1", "true", "yes", "on"}:
            return True
        if word in {"0", "false", "no", "off"}:
            return False
        raise ImproperlyConfigured(f"{name} must be true or false, not {word!r}")

    def whole(self, name: str, default: int, *, least: int = 0) -> int:
        """A whole number."""
        word = self.text(name, str(default))
        if not word.strip().isdecimal() or int(word) < least:
            raise ImproperlyConfigured(f"{name} must be a whole number from {least}, not {word!r}")
        return int(word)

    def money(self, name: str, default: str) -> Decimal:
        """An amount, at least 0."""
        word = self.text(name, default)
        try:
            amount = Decimal(word)
        except InvalidOperation:
            amount = Decimal(-1)
        if not amount.is_finite() or amount < 0:
            raise ImproperlyConfigured(f"{name} must be a number from 0, such as 0.25, not {word!r}")
        return amount

    def networks(self, name: str, default: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
        """Addresses or networks between commas."""
        words = [word.strip() for word in self.text(name, default).split(",") if word.strip()]
        try:
            return [ipaddress.ip_network(word) for word in words]
        except ValueError as error:
            raise ImproperlyConfigured(
                f"{name} must be addresses or networks such as 127.0.0.1,10.0.0.0/8, not {error}"
            ) from error


def kept_secret(path: Path) -> str:
    """The secret that this machine's site signs with, made the first time."""
    try:
        return path.read_text(encoding="ascii")
    except FileNotFoundError:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = secrets.token_urlsafe(50)
    half_made = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(half_made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(made)
    try:
        os.link(half_made, path)  # the first of several processes wins
    except FileExistsError:
        pass
    finally:
        half_made.unlink()
    return path.read_text(encoding="ascii")
