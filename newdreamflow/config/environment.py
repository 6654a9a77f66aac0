"""Reads the site's environment variables, and `.env` beneath them: one function a kind of value."""

from __future__ import annotations

import ipaddress
import os
import secrets
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from django.core.exceptions import ImproperlyConfigured
from dotenv import dotenv_values

__all__ = ["Environment", "kept_folder", "kept_secret"]

_MOST_MONEY: Final = 1_000_000
"""The ledger's columns hold a hundred times that."""


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

    def whole(self, name: str, default: int, *, least: int = 0, most: int | None = None) -> int:
        """A whole number."""
        word = self.text(name, str(default))
        if not word.strip().isdecimal() or int(word) < least or (most is not None and int(word) > most):
            to = "" if most is None else f" to {most}"
            raise ImproperlyConfigured(f"{name} must be a whole number from {least}{to}, not {word!r}")
        return int(word)

    def port(self, name: str, default: int) -> int:
        """A TCP port."""
        return self.whole(name, default, least=1, most=65535)

    def money(self, name: str, default: str) -> Decimal:
        """An amount, at least 0."""
        word = self.text(name, default)
        try:
            amount = Decimal(word)
        except InvalidOperation:
            amount = Decimal(-1)
        if not amount.is_finite() or not 0 <= amount <= _MOST_MONEY:
            raise ImproperlyConfigured(f"{name} must be a number from 0 to {_MOST_MONEY}, such as 0.25, not {word!r}")
        return amount

    def one_of(self, name: str, default: str, words: Sequence[str]) -> str:
        """One of these words, in small letters."""
        word = self.text(name, default).strip().lower()
        if word not in words:
            raise ImproperlyConfigured(f"{name} must be {', '.join(words[:-1])} or {words[-1]}, not {word!r}")
        return word

    def url(self, name: str, default: str) -> str:
        """Where something answers by HTTP or HTTPS, without a slash at the end."""
        word = self.text(name, default).rstrip("/")
        try:
            parts = urlsplit(word)
            is_url = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0 and " " not in word
        except ValueError:  # its port, or brackets that do not close
            is_url = False
        if not is_url:
            told = "what it is" if "@" in word else repr(word)  # before an @ there may be a password
            raise ImproperlyConfigured(f"{name} must be a URL such as {default}, not {told}")
        return word

    def time_zone(self, name: str, default: str) -> str:
        """The name of a time zone."""
        word = self.text(name, default)
        try:
            ZoneInfo(word)
        except (KeyError, ValueError, OSError) as error:  # unknown; no name at all; a folder of them
            raise ImproperlyConfigured(
                f"{name} must be a time zone such as UTC or Europe/Berlin, not {word!r}"
            ) from error
        return word

    def secret(self, name: str, *, least: int) -> str:
        """Any text so long, or none. What it is is never shown."""
        word = self.text(name)
        if word and len(word) < least:
            raise ImproperlyConfigured(f"{name} must have {least} characters or more, not {len(word)}")
        return word

    def networks(self, name: str, default: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
        """Addresses or networks between commas."""
        words = [word.strip() for word in self.text(name, default).split(",") if word.strip()]
        try:
            return [ipaddress.ip_network(word) for word in words]
        except ValueError as error:
            raise ImproperlyConfigured(
                f"{name} must be addresses or networks such as 127.0.0.1,10.0.0.5, not {error}"
            ) from error


def kept_folder(path: Path) -> Path:
    """The site's part of `DATA_DIR`, made the first time."""
    rule = "DATA_DIR must be a folder that the site may write to"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ImproperlyConfigured(f"{rule}, not {str(path.parent)!r}: {error.strerror}") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise ImproperlyConfigured(f"{rule}, not {str(path.parent)!r}: {path.name}/ in it may not be written to")
    return path


def kept_secret(path: Path) -> str:
    """The secret that this machine's site signs with, made the first time."""
    try:
        return path.read_text(encoding="ascii") if path.exists() else _made_secret(path)
    except OSError as error:  # such as one that root made, for a site that is not root
        raise ImproperlyConfigured(
            f"SITE_SECRET_KEY must be set, or {path} be a file of the site's own: {error.strerror}"
        ) from error


def _made_secret(path: Path) -> str:
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
