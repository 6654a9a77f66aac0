"""Which way a picture grows when it is drawn beyond its edges, and by how many pixels. No Django."""

from __future__ import annotations

from typing import Final

__all__ = ["DIRECTIONS", "LARGEST", "grown_size", "growth_of"]

DIRECTIONS: Final = {
    "all": "On all sides",
    "sides": "To the left and right",
    "left": "To the left",
    "right": "To the right",
    "top": "Upwards",
    "bottom": "Downwards",
}
"""Key -> label. On two sides the picture grows by a quarter each, on one by half."""
LARGEST: Final = 2048
"""Pixels of a side that the GPU server draws."""
_MULTIPLE: Final = 16
_SHARES: Final[dict[str, dict[str, float]]] = {
    "all": {"left": 0.25, "top": 0.25, "right": 0.25, "bottom": 0.25},
    "sides": {"left": 0.25, "right": 0.25},
    "left": {"left": 0.5},
    "right": {"right": 0.5},
    "top": {"top": 0.5},
    "bottom": {"bottom": 0.5},
}


def growth_of(direction: str, width: int, height: int) -> dict[str, int]:
    """Pixels by which a picture of this size grows at each side."""
    return {
        side: max(1, round(share * (width if side in {"left", "right"} else height) / _MULTIPLE)) * _MULTIPLE
        for side, share in _SHARES[direction].items()
    }


def grown_size(direction: str, width: int, height: int) -> tuple[int, int]:
    """Width and height of the picture that has grown."""
    growth = growth_of(direction, width, height)
    return (
        width + growth.get("left", 0) + growth.get("right", 0),
        height + growth.get("top", 0) + growth.get("bottom", 0),
    )
