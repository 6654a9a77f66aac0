"""The site with the settings of a public one, in processes of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]

MANAGE = REPOSITORY / "newdreamflow" / "manage.py"

PUBLIC = {
    "SITE_URL": "https://dreams.example.org",
    "SITE_SECRET_KEY": "k3J-9vQx0LrT5wZbYc7NfHs2PdGm8EaU4iXo1RtSqWyVuKhBnMjLpCgD",
    "DATABASE_URL": "postgres://somebody@127.0.0.1:9/nowhere",
}


def environment(folder, **settings):
    """Of a process that knows these settings alone."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return kept | {"DATA_DIR": str(folder), "PYTHONPATH": "client", "PYTHONWARNINGS": "error"} | settings


def manage(folder, *arguments, **settings):
    return subprocess.run(
        [sys.executable, str(MANAGE), *arguments],
        cwd=REPOSITORY,
        env=environment(folder, **settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
