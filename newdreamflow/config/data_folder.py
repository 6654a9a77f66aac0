"""The site's part of `DATA_DIR`, and the secret in it that sessions and links in mail are signed with."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

__all__ = ["kept_folder", "kept_secret"]


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
            f"SITE_SECRET_KEY must be set, or {path} be a file that the site can read and write: {error.strerror}"
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
