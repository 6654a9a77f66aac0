"""Wildcards: files of texts in a folder, one a line, which `__name__` in a dynamic prompt stands for. No torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from engine.prompts.errors import PromptError

__all__ = ["MAX_FILE_BYTES", "WildcardFolder"]

MAX_FILE_BYTES: Final = 2**20

_NAME: Final = re.compile(r"[\w-]+(?:/[\w-]+)*", re.ASCII)


class WildcardFolder:
    """Reads `NAME.txt`; a name may have folders: `animals/birds`. A file that changes counts from then on."""

    def __init__(self, folder: Path | None) -> None:
        """None: there are no wildcards."""
        self._folder = folder

    def __call__(self, name: str) -> Sequence[str] | None:
        """The lines of a file, without empty ones and those that begin with `#`; None: there is no such file.

        Raises:
            PromptError: it cannot be read.
        """
        if self._folder is None or not _NAME.fullmatch(name):
            return None
        path = self._folder / f"{name}.txt"
        try:
            if not path.is_file():
                return None
            if path.stat().st_size > MAX_FILE_BYTES:
                raise PromptError(f"names a wildcard whose file is larger than {MAX_FILE_BYTES} bytes: {name}")
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError):
            raise PromptError(f"names a wildcard whose file cannot be read as UTF-8: {name}") from None
        lines = (line.strip() for line in text.splitlines())
        return [line for line in lines if line and not line.startswith("#")]
