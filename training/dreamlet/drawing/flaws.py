"""Flaws added to some training pictures, so that negative prompts work."""

import numpy as np
from PIL import Image, ImageFilter


def blurred(picture: Image.Image) -> Image.Image:
    """Out of focus."""
    return picture.filter(ImageFilter.GaussianBlur(min(picture.size) / 64))


def coarse(picture: Image.Image) -> Image.Image:
    """Few pixels and few tones, smeared to size."""
    small = picture.reduce(8).quantize(12).convert("RGB")
    return small.resize(picture.size, Image.Resampling.BILINEAR)


def warped(picture: Image.Image) -> Image.Image:
    """Bent like a reflection in moving water."""
    pixels = np.asarray(picture)
    rows = np.arange(picture.height)
    unit = min(picture.size)
    shift = (unit * 0.05 * np.sin(rows / unit * 19)).round().astype(int)
    columns = (np.arange(picture.width)[None] + shift[:, None]) % picture.width
    return Image.fromarray(pixels[rows[:, None], columns])


FLAWS = {"blurry": blurred, "low quality": coarse, "distorted": warped}
"""By the word for it."""
