"""Copies the files that the GPU server's page and the site share to the site: `python scripts/copy_shared_files.py`."""

from __future__ import annotations

import shutil
from pathlib import Path

__all__ = ["COPIES"]

REPOSITORY = Path(__file__).resolve().parents[1]
_FROM = REPOSITORY / "server" / "static" / "app"
_TO = REPOSITORY / "newdreamflow" / "static" / "newdreamflow"

COPIES = {_FROM / name: _TO / name for name in ("base.css", "painter.css", "painter.js")}
"""Original -> copy. The site is installed without the server, so it cannot serve the original."""


def main() -> None:
    """Make the copies equal to the originals."""
    for original, copy in COPIES.items():
        shutil.copyfile(original, copy)
        print(f"copied {original.relative_to(REPOSITORY)} to {copy.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    main()
