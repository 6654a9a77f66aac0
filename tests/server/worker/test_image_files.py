"""Pixels become files that every reader opens."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from server.worker.image_files import encode_image


@pytest.fixture
def pixels() -> np.ndarray:
    """A picture without any symmetry that could hide a swapped axis or channel."""
    rows, columns = np.mgrid[0:48, 0:72]
    return np.stack([rows * 5, columns * 3, (rows * columns) % 256], axis=-1).astype(np.uint8)


def test_a_png_holds_exactly_the_pixels(pixels: np.ndarray):
    file = encode_image(pixels, "png")
    assert file.media_type == "image/png"
    with Image.open(io.BytesIO(file.data), formats=["PNG"]) as image:
        image.load()
        assert (image.mode, image.size, image.info.get("interlace", 0)) == ("RGB", (72, 48), 0)
        assert np.array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize("output_format", ["webp", "jpeg"])
def test_a_lossy_file_is_close_to_the_pixels(output_format: str):
    smooth = np.stack(np.broadcast_arrays(*np.ogrid[0:128:2, 64:192:2], 90), axis=-1).astype(np.uint8)
    file = encode_image(smooth, output_format)
    assert file.media_type == f"image/{output_format}"
    with Image.open(io.BytesIO(file.data), formats=[output_format.upper()]) as image:
        assert image.size == (64, 64)
        assert np.abs(np.asarray(image.convert("RGB")).astype(int) - smooth).mean() < 3


@pytest.mark.parametrize("output_format", ["webp", "jpeg"])
def test_a_lower_quality_makes_a_smaller_file(pixels: np.ndarray, output_format: str):
    sizes = [len(encode_image(pixels, output_format, quality=quality).data) for quality in (0, 50, 95, 100)]
    assert sizes == sorted(set(sizes))
    assert encode_image(pixels, output_format, quality=95) == encode_image(pixels, output_format)


@pytest.mark.parametrize("output_format", ["png", "webp", "jpeg"])
def test_the_same_pixels_give_the_same_bytes(pixels: np.ndarray, output_format: str):
    assert encode_image(pixels, output_format) == encode_image(pixels.copy(), output_format)


def test_a_picture_that_is_not_contiguous_is_written_as_it_looks(pixels: np.ndarray):
    mirrored = pixels[:, ::-1]
    with Image.open(io.BytesIO(encode_image(mirrored, "png").data)) as image:
        assert np.array_equal(np.asarray(image), mirrored)
