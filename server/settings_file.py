"""Reads the settings from the environment and from `.env`, and finds names in `.env` that mean none of them.

The environment wins over `.env`.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values
from pydantic import ValidationError

from server.config import Settings, StartError
from server.error_wording import rule_of, shortened

__all__ = ["load_settings", "misspelt_names", "unknown_names"]

_ENCODING = "utf-8-sig"

_HUB_NAMES = ("HF_HOME", "HF_HUB_CACHE")
"""Where the model hub's library keeps what it has fetched."""

_OF_THE_SITE = ("SITE_", "EMAIL_", "GPU_SERVER_")
"""How the names begin that the site reads from the same file, and warns about."""

_SECRETS = frozenset({"API_KEY", "ENGINE_TOKEN"})
"""Settings whose values are never repeated, not even a wrong one."""


def load_settings(env_file: Path = Path(".env")) -> Settings:
    """Read the settings from the environment and, beneath it, from `env_file`.

    Raises:
        StartError: a value is wrong, or the file cannot be read; one line that names each setting, rule and value.
    """
    try:
        _take_hub_cache(env_file)
        # pydantic-settings adds these arguments at run time
        return Settings(_env_file=env_file, _env_file_encoding=_ENCODING)  # type: ignore[call-arg]
    except ValidationError as error:
        raise StartError("; ".join(_setting_error(finding) for finding in error.errors())) from None
    except UnicodeError:
        raise StartError(f"{env_file} cannot be read: it must be text in UTF-8; save it as UTF-8") from None
    except OSError as error:
        raise StartError(f"{env_file} cannot be read: {error.strerror}") from None


def _values_of(env_file: Path) -> Mapping[str, str | None]:
    """What stands in the file, as the site reads it too: UTF-8, with or without a byte order mark."""
    if env_file.is_file() and b"\0" in env_file.read_bytes():
        raise StartError(f"{env_file} must be text in UTF-8, and looks like UTF-16; save it as UTF-8")
    return dotenv_values(env_file, encoding=_ENCODING)


def _take_hub_cache(env_file: Path) -> None:
    """Let the model hub's own names count in the file as they do in the environment, for gateway and engine alike."""
    found = _values_of(env_file)
    for name in _HUB_NAMES:
        if value := found.get(name):
            os.environ.setdefault(name, value)


def unknown_names(env_file: Path = Path(".env")) -> Mapping[str, str | None]:
    """Names in `env_file` that are no settings -> the setting they look like, if any. Without the site's."""
    ours = [*(name.upper() for name in Settings.model_fields), *_HUB_NAMES]
    names = [name for name in _values_of(env_file) if name.upper() not in ours]
    close = {name: difflib.get_close_matches(name.upper(), ours, n=1, cutoff=0.8) for name in names}
    return {name: next(iter(close[name]), None) for name in names if not name.upper().startswith(_OF_THE_SITE)}


def misspelt_names(env_file: Path = Path(".env")) -> Mapping[str, str]:
    """Those of them that look like a setting."""
    return {name: setting for name, setting in unknown_names(env_file).items() if setting is not None}


def _setting_error(finding: Mapping[str, object]) -> str:
    name = str(finding["loc"][0]).upper()  # type: ignore[index]  # pydantic's `loc` is a tuple
    if name in _SECRETS:
        return f"{name} {rule_of(finding)}"
    return f"{name} {rule_of(finding)}, not {shortened(finding['input'])!r}"
