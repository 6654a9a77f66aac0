"""The result of a run, by any contender: pictures, and when each was finished."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Drawn", "Pixels"]

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Drawn:
    """Pictures, in the order they were asked for."""

    finished_s: list[float]
    """Seconds from the beginning of the run to each picture's pixels."""
    pictures: list[Pixels]
    """(height, width, 3), RGB."""
