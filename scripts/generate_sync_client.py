"""Writes the blocking half of the client (`client.py`) from the asyncio half (`async_client.py`), word by word.

`--check` writes nothing and fails when the file is not what would be written; `test.sh` runs it.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

__all__ = ["main", "sync_source"]

FOLDER: Final = Path(__file__).resolve().parent.parent / "client" / "semantic_bit_client"
SOURCE: Final = FOLDER / "async_client.py"
TARGET: Final = FOLDER / "client.py"

SENTENCES: Final = {
    "The client for asyncio. (`scripts/generate_sync_client.py` makes `client.py`, for blocking code, from this.)": (
        "The client for blocking code: scripts, Django views, workers. (`scripts/generate_sync_client.py` makes\n"
        "it from `async_client.py`: change that file, then run the script.)\n"
    ),
    "Tasks of one event loop may share it.": "Threads may share it; processes may not.",
}
"""What the two halves say differently; each must be found."""

WORDS: Final = (
    (r"\bAsyncGenerator\[(.+), None\]", r"Generator[\1, None, None]"),
    (r"\bawait ", ""),
    (r"\basync (def|for|with)\b", r"\1"),
    (r"\basyncio\b", "time"),
    (r"\baclosing\b", "closing"),
    (r"\basynccontextmanager\b", "contextmanager"),
    (r"\b__a(enter|exit)__", r"__\1__"),
    (r"\ba(close|iter_bytes)\b", r"\1"),
    (r"\b(_?)Async(?=[A-Z])", r"\1"),
)
"""Pattern -> replacement, in this order: `AsyncClient` is `Client`, `_AsyncWire` is `_Wire`."""


def sync_source(source: str) -> str:
    """The blocking half that belongs to an asyncio half, formatted.

    Raises:
        ValueError: a sentence that the two halves say differently is not in `source`.
    """
    for ours, theirs in SENTENCES.items():
        if ours not in source:
            raise ValueError(f"async_client.py no longer says {ours!r}: change SENTENCES of this script too")
        source = source.replace(ours, theirs)
    for pattern, replacement in WORDS:
        source = re.sub(pattern, replacement, source)
    command = [sys.executable, "-m", "ruff", "format", "--quiet", "--stdin-filename", str(TARGET), "-"]
    return subprocess.run(command, input=source, capture_output=True, check=True, text=True).stdout  # noqa: S603 - our own text


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Write client.py from async_client.py.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if client.py is not up to date")
    options = parser.parse_args(arguments)
    wanted = sync_source(SOURCE.read_text(encoding="utf-8"))
    if options.check:
        if TARGET.read_text(encoding="utf-8") == wanted:
            return 0
        print(f"{TARGET.name} is not what {SOURCE.name} makes: run python scripts/generate_sync_client.py")
        return 1
    TARGET.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
