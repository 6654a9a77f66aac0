"""The site's settings as the environment and `.env` name them: names, defaults, rules. (Django's: `settings.py`.)"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from django.core.exceptions import ImproperlyConfigured
from dotenv import dotenv_values
from pydantic import BeforeValidator, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

__all__ = ["SiteSettings", "load_settings", "unknown_names"]

_MOST_MONEY: Final = 1_000_000
"""The ledger's columns hold a hundred times that."""


def _whole(least: int = 0, most: int | None = None) -> BeforeValidator:
    def read(word: str) -> int:
        if not word.strip().isdecimal() or int(word) < least or (most is not None and int(word) > most):
            to = "" if most is None else f" to {most}"
            raise ValueError(f"must be a whole number from {least}{to}, not {word!r}")
        return int(word)

    return BeforeValidator(read)


def _flag(word: str) -> bool:
    value = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if word.strip().lower() not in value:
        raise ValueError(f"must be true or false, not {word!r}")
    return value[word.strip().lower()]


def _money(word: str) -> Decimal:
    try:
        amount = Decimal(word)
    except InvalidOperation:
        amount = Decimal(-1)
    if not amount.is_finite() or not 0 <= amount <= _MOST_MONEY:
        raise ValueError(f"must be a number from 0 to {_MOST_MONEY}, such as 0.25, not {word!r}")
    return amount


def _one_of(*words: str) -> BeforeValidator:
    def read(word: str) -> str:
        if word.strip().lower() not in words:
            raise ValueError(f"must be {', '.join(words[:-1])} or {words[-1]}, not {word!r}")
        return word.strip().lower()

    return BeforeValidator(read)


def _url(example: str, *, may_have_path: bool = False) -> BeforeValidator:
    def read(word: str) -> str:
        word = word.rstrip("/")
        shown = "what it is" if "@" in word else repr(word)  # before an @ there may be a password
        try:
            parts = urlsplit(word)
            is_url = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0 and " " not in word
        except ValueError:  # its port, or brackets that do not close
            is_url = False
        if not is_url:
            raise ValueError(f"must be a URL such as {example}, not {shown}")
        if not word.isascii():
            raise ValueError(f"must be ASCII, a host name beyond it as xn--..., not {shown}")
        if not may_have_path and (parts.path or parts.query or parts.fragment):
            raise ValueError(f"must end after host and port, like {example}, not {shown}")
        return word

    return BeforeValidator(read)


def _time_zone(word: str) -> str:
    try:
        ZoneInfo(word)
    except (KeyError, ValueError, OSError) as error:  # unknown; no name at all; a folder of them
        raise ValueError(f"must be a time zone such as UTC or Europe/Berlin, not {word!r}") from error
    return word


def _secret(word: str) -> str:
    if len(word) < 50:
        raise ValueError(f"must have 50 characters or more, not {len(word)}")
    return word


def _networks(words: str) -> list[IPv4Network | IPv6Network]:
    try:
        return [ip_network(word.strip()) for word in words.split(",") if word.strip()]
    except ValueError as error:
        raise ValueError(f"must be addresses or networks such as 127.0.0.1,10.0.0.5, not {error}") from error


_LONGEST_NAME: Final = 200


def _names(words: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(word.strip() for word in words.split(",") if word.strip()))
    too_long = [name for name in names if len(name) > _LONGEST_NAME]
    if too_long:
        raise ValueError(f"must be names of at most {_LONGEST_NAME} characters, not {len(too_long[0])}")
    return names


_Flag = Annotated[bool, BeforeValidator(_flag)]
_Money = Annotated[Decimal, BeforeValidator(_money)]
_Port = Annotated[int, _whole(1, 65535)]


class SiteSettings(BaseSettings):
    """One process's. Names in any letter case; an empty value means unset, as for the GPU server (docs/site.md)."""

    model_config = SettingsConfigDict(
        env_ignore_empty=True, env_file_encoding="utf-8-sig", extra="ignore", frozen=True, validate_default=False
    )

    data_dir: str = "var"
    site_port: _Port = 8001
    site_url: Annotated[str, _url("http://127.0.0.1:8001")] | None = None
    site_debug: _Flag = False
    site_secret_key: Annotated[str, BeforeValidator(_secret)] | None = None
    site_time_zone: Annotated[str, BeforeValidator(_time_zone)] = "UTC"
    site_trusted_proxies: Annotated[list[IPv4Network | IPv6Network], NoDecode, BeforeValidator(_networks)] | None = None
    site_hsts_seconds: Annotated[int, _whole(0, 10**9)] = 300
    database_url: str | None = None
    site_runner: Annotated[Literal["database", "celery"], _one_of("database", "celery")] = "database"
    redis_url: str = "redis://127.0.0.1:6379/0"
    gpu_server_url: Annotated[str, _url("http://127.0.0.1:8000", may_have_path=True)] | None = None
    port: _Port = 8000
    gpu_server_api_key: str = ""
    site_price_per_work_unit: _Money = Decimal("1.00")
    site_starting_budget: _Money = Decimal("100.00")
    site_max_unfinished_dreams: Annotated[int, _whole(1)] = 20
    site_default_size: Annotated[int, _whole(256, 768)] = 256
    site_models: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)] = ()
    email_host: str = ""
    email_port: _Port = 587
    email_host_user: str = ""
    email_host_password: str = ""
    email_use_tls: _Flag = True
    email_from: str | None = None
    log_level: Annotated[str, _one_of("debug", "info", "warning", "error")] = "info"


def load_settings(env_file: Path) -> SiteSettings:
    """Read the settings from the environment and, beneath it, from `env_file`.

    Raises:
        ImproperlyConfigured: a value is wrong, or the file cannot be read; one line that names setting, rule and value.
    """
    with _failures_in_words(env_file):
        return SiteSettings(_env_file=env_file)  # type: ignore[call-arg]  # pydantic-settings adds it at run time


def unknown_names(env_file: Path) -> Sequence[str]:
    """A line for each name in the environment and `env_file` that looks like the site's and is no setting."""
    ours = [name.upper() for name in SiteSettings.model_fields]
    with _failures_in_words(env_file):
        of_file = dotenv_values(env_file, encoding="utf-8-sig") if env_file.is_file() else {}
    named = {name for name in {*of_file, *os.environ} if name.upper().startswith("SITE_")}
    named |= {name for name in of_file if name.upper().startswith(("EMAIL_", "GPU_SERVER_"))}
    lines = []
    for name in sorted(name for name in named if name.upper() not in ours):
        close = difflib.get_close_matches(name.upper(), ours, n=1, cutoff=0.8)
        meant = f"; did you mean {close[0]}?" if close else ""
        lines.append(f"{name} is not a setting of the site and has no effect{meant}")
    return lines


@contextmanager
def _failures_in_words(env_file: Path) -> Iterator[None]:
    try:
        if env_file.is_file() and b"\0" in env_file.read_bytes():
            raise ImproperlyConfigured(f"{env_file} must be text in UTF-8, and looks like UTF-16")
        yield
    except ValidationError as error:
        raise ImproperlyConfigured("; ".join(map(_words_of, error.errors()))) from None
    except UnicodeDecodeError as error:
        raise ImproperlyConfigured(f"{env_file} must be text in UTF-8: {error.reason} at byte {error.start}") from None
    except OSError as error:
        raise ImproperlyConfigured(f"{env_file} cannot be read: {error.strerror}") from None


def _words_of(finding: Any) -> str:  # noqa: ANN401 -- pydantic's own record
    """Our words without the value in pydantic's, which may be a secret."""
    return f"{str(finding['loc'][0]).upper()} {str(finding['msg']).removeprefix('Value error, ')}"
