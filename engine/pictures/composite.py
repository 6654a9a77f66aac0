"""Lays what was drawn over what was there: the last act on pixels. What is not marked stays, bit for bit."""

from __future__ import annotations

import numpy as np

from engine.pictures.mask import Box
from engine.pictures.resize import Pixels, resize

__all__ = ["laid_over", "pasted"]


def laid_over(old: Pixels, new: Pixels, mask: Pixels) -> Pixels:
    """Mix two pictures in integers: `(mask * new + (255 - mask) * old + 127) // 255`.

    Where the mask is 0 that is exactly the old one, where it is 255 exactly the new one.

    Args:
        old: (H, W, 3).
        new: (H, W, 3).
        mask: (H, W).
    """
    share = mask[..., None].astype(np.uint16)
    # 255 * 255 + 127 still fits into 16 bits.
    return ((share * new + (255 - share) * old + 127) // 255).astype(np.uint8)


def pasted(old: Pixels, new: Pixels, mask: Pixels, box: Box) -> Pixels:
    """Bring what was drawn of a part of a picture back to that part's size, and lay it over the whole picture.

    Args:
        old: (H, W, 3), the whole picture.
        new: of any size: the part, as `resize(..., "fill")` made it and the network changed it.
        mask: (H, W), of the whole picture, black outside the box.
        box: where the part is.
    """
    result = old.copy()
    part = resize(new, box.height, box.width, "crop")
    box.of(result)[:] = laid_over(box.of(old), part, box.of(mask))
    return result
