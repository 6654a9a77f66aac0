"""Copies the style that the GPU server's page and the site share to the site: `python scripts/copy_base_css.py`."""

from __future__ import annotations

import shutil
from pathlib import Path

__all__ = ["COPY", "ORIGINAL"]

REPOSITORY = Path(__file__).resolve().parents[1]
ORIGINAL = REPOSITORY / "server" / "static" / "app" / "base.css"
COPY = REPOSITORY / "newdreamflow" / "static" / "newdreamflow" / "base.css"


def main() -> None:
    """Make the copy equal to the original."""
    shutil.copyfile(ORIGINAL, COPY)
    print(f"copied {ORIGINAL.relative_to(REPOSITORY)} to {COPY.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    main()
