"""How much memory a model takes, read off the headers of its files. No torch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from engine.models.layout import WEIGHTS_STEM, find_weights, read_configs
from engine.models.weights_header import read_header

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["memory_bytes"]


def memory_bytes(path: Path, bytes_per_number: int) -> int:
    """Bytes of all weights of a model.

    Args:
        path: a folder in diffusers layout, or a single file.
        bytes_per_number: of the weights in memory: 2 or 4.

    Raises:
        ModelLoadError: it cannot be served.
    """
    configs = read_configs(path)
    numbers = 0
    for part in WEIGHTS_STEM:
        if part == "text_encoder_2" and configs.text_encoder_2 is None:
            continue
        shapes = read_header(find_weights(path, part, prefer_fp16=bytes_per_number == 2)).shapes
        is_own = configs.single is None or part not in configs.single.prefixes
        prefix = "" if configs.single is None or is_own else configs.single.prefixes[part]
        numbers += sum(math.prod(shape) for name, shape in shapes.items() if name.startswith(prefix))
    return numbers * bytes_per_number
