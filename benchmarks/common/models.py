"""Which model a benchmark draws with, and at what size."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from engine.errors import EngineError
from engine.models.locate import locate

__all__ = ["ChosenModel", "from_any_folder"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenModel:
    """A model with weights, that diffusers can draw with too."""

    path: Path
    height: int
    """Pixels."""
    width: int
    """Pixels."""

    @classmethod
    def of(cls, parser: argparse.ArgumentParser, model_id: str, size: int | None) -> ChosenModel:
        """Find it; end the script with a readable line if it is not there.

        Args:
            parser: says what is wrong.
            model_id: folder or id.
            size: pixels of each side; None: the model's own.
        """
        try:
            folder = locate(model_id)
        except EngineError as error:
            parser.error(f"--model: {error}")
        if folder.path is None:
            parser.error("--model must have weights: diffusers cannot draw with the fake one")
        return cls(path=folder.path, height=size or folder.native_height, width=size or folder.native_width)


def from_any_folder(model_id: str) -> str:
    """The model as a server finds it that runs in another folder than this process."""
    return str(Path(model_id).resolve()) if Path(model_id).is_dir() else model_id
