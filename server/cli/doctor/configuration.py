"""Checks of `.env`: unknown names, file permissions."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from dotenv import dotenv_values

from server.cli.doctor.finding import Finding
from server.settings_file import misspelt_names

__all__ = ["look_at_configuration"]


def look_at_configuration(env_file: Path = Path(".env")) -> Iterator[Finding]:
    """Look at `.env` in the working directory, which is where `serve` reads it. No value is ever shown."""
    if not env_file.exists():
        yield Finding(".env", "ok", "no such file; settings come from the environment and the defaults")
        return
    try:
        misspelt = misspelt_names(env_file)
    except (OSError, UnicodeDecodeError) as error:
        yield Finding(".env", "FAIL", f"cannot be read: {error}", "make it a text file that this user can read")
        return
    for name, setting in misspelt.items():
        yield Finding(".env", "warn", f"{name} is not a setting", f"did you mean {setting}?")
    mode = env_file.stat().st_mode
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield Finding(".env", "warn", "other users can change it", "chmod go-w .env")
    elif mode & (stat.S_IRGRP | stat.S_IROTH) and dotenv_values(env_file).get("API_KEY"):
        yield Finding(".env", "warn", "it holds API_KEY, and other users can read it", "chmod 600 .env")
    elif not misspelt:
        yield Finding(".env", "ok", "every setting in it is known")
