"""Picture files of every kind become plain pixels, and what is too large, animated or broken is refused."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from server.worker.image_files import decode_png, encode_png
from server.worker.picture_reading import MAX_SIDE, PictureError, name_of, read_picture
from tests.server.uploads.picture_files import bomb, chunk, pixels_of, png, png_of, saved

RGB = pixels_of(6, 4)
GREY = pixels_of(6, 4, 1)
TURNS = {
    1: lambda seen: seen,
    2: lambda seen: seen[:, ::-1],
    3: lambda seen: seen[::-1, ::-1],
    4: lambda seen: seen[::-1],
    5: lambda seen: seen.swapaxes(0, 1),
    6: lambda seen: np.rot90(seen, 1),
    7: lambda seen: seen[::-1, ::-1].swapaxes(0, 1),
    8: lambda seen: np.rot90(seen, -1),
}
"""EXIF's orientation -> how the camera has laid the upright picture down."""


def rule_of(data: bytes) -> str:
    with pytest.raises(PictureError) as refused:
        read_picture(data, "picture")
    return refused.value.rule


@pytest.mark.parametrize(("picture_format", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_lossless_files_keep_every_pixel(picture_format, options):
    data = saved(Image.fromarray(RGB), picture_format, **options)
    np.testing.assert_array_equal(read_picture(data, "picture"), RGB)


def test_a_jpeg_is_read_as_pillow_reads_it():
    data = saved(Image.fromarray(RGB), "JPEG", quality=90)
    np.testing.assert_array_equal(read_picture(data, "picture"), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("picture_format", ["PNG", "WEBP"])
def test_a_photograph_lies_as_it_was_meant(orientation, picture_format):
    exif = Image.Exif()
    exif[0x0112] = orientation
    laid_down = Image.fromarray(np.ascontiguousarray(TURNS[orientation](RGB)))
    options = {"lossless": True} if picture_format == "WEBP" else {}
    data = saved(laid_down, picture_format, exif=exif, **options)
    np.testing.assert_array_equal(read_picture(data, "picture"), RGB)


def test_transparency_is_put_on_white():
    layered = np.dstack([RGB, np.zeros((6, 4), np.uint8)])
    layered[:3, :, 3] = 255
    read = read_picture(saved(Image.fromarray(layered), "PNG"), "picture")
    np.testing.assert_array_equal(read[:3], RGB[:3])
    assert (read[3:] == 255).all()


def test_a_palette_with_transparency_a_grey_one_and_a_bitmap_are_read():
    palette = Image.fromarray(RGB).quantize(16)
    expected = np.asarray(palette.convert("RGB"))
    np.testing.assert_array_equal(read_picture(saved(palette, "PNG"), "picture"), expected)
    first = np.asarray(palette)[0, 0]
    with_hole = read_picture(saved(palette, "PNG", transparency=int(first)), "picture")
    assert (with_hole[np.asarray(palette) == first] == 255).all()
    np.testing.assert_array_equal(read_picture(saved(Image.fromarray(GREY), "PNG"), "picture")[..., 1], GREY)
    bitmap = Image.fromarray(GREY > 127)
    np.testing.assert_array_equal(read_picture(saved(bitmap, "PNG"), "picture")[..., 0], (GREY > 127) * 255)


def test_sixteen_bits_are_rounded_to_eight():
    wide = np.array([[0, 128, 129, 257, 32767, 65535]], np.uint16)
    read = read_picture(saved(Image.fromarray(wide), "PNG"), "picture")
    np.testing.assert_array_equal(read[0, :, 0], [0, 0, 1, 1, 127, 255])


def test_sixteen_bits_in_colour_are_read():
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in RGB.astype(np.uint16) * 257)
    data = png_of(struct.pack(">IIBBBBB", 4, 6, 16, 2, 0, 0, 0), chunk(b"IDAT", zlib.compress(rows)))
    np.testing.assert_array_equal(read_picture(data, "picture"), RGB)


def test_ink_of_a_printer_is_read():
    ink = Image.new("CMYK", (4, 6), (0, 255, 255, 0))
    read = read_picture(saved(ink, "JPEG", quality=95), "picture")
    assert read[..., 0].min() > 245
    assert read[..., 1:].max() < 10


def test_a_mask_is_grey_and_a_grey_one_keeps_its_values():
    np.testing.assert_array_equal(read_picture(saved(Image.fromarray(GREY), "PNG"), "mask"), GREY)
    expected = np.asarray(Image.fromarray(RGB).convert("L"))
    np.testing.assert_array_equal(read_picture(png(), "mask"), expected)


def test_what_is_written_is_read_again_and_is_named_alike():
    for kind, pixels in (("picture", RGB), ("mask", GREY)):
        again = read_picture(encode_png(pixels), kind)
        np.testing.assert_array_equal(decode_png(encode_png(pixels)), pixels)
        np.testing.assert_array_equal(again, pixels)
        assert name_of(again) == name_of(pixels)


def test_names_tell_pixels_shapes_and_kinds_apart():
    one = np.zeros((4, 6, 3), np.uint8)
    other = one.copy()
    other[3, 5, 2] = 1
    grey = np.zeros((4, 18), np.uint8)
    names = {name_of(pixels) for pixels in (one, other, one.reshape(6, 4, 3), grey)}
    assert len(names) == 4


def test_what_a_file_says_of_itself_beside_its_pixels_does_not_matter():
    plain = read_picture(png(), "picture")
    text = chunk(b"zTXt", b"parameters\0\0" + zlib.compress(bytes(8 * 2**20)))
    profile = chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(8 * 2**20)))
    data = png()
    loaded = data[:33] + text * 3 + profile + data[33:]
    np.testing.assert_array_equal(read_picture(loaded, "picture"), plain)


@pytest.mark.parametrize(
    ("width", "height"), [(60_000, 1), (1, 60_000), (4097, 4096), (2**31 - 1, 2**31 - 1), (50_000, 50_000)]
)
def test_a_bomb_is_refused_by_its_header_with_its_size(width, height):
    with pytest.raises(PictureError) as refused:
        read_picture(bomb(width, height), "picture")
    assert refused.value.rule == f"must be at most {MAX_SIDE} pixels wide and high"
    assert refused.value.value == f"{width}x{height}"


def test_a_jpeg_and_every_kind_of_webp_are_refused_by_their_headers():
    wide = Image.new("RGB", (MAX_SIDE + 1, 2))
    for data in (
        saved(wide, "JPEG"),
        saved(wide, "WEBP"),
        saved(wide, "WEBP", lossless=True),
        saved(Image.new("RGBA", (MAX_SIDE + 1, 2), (1, 2, 3, 4)), "WEBP"),
    ):
        assert rule_of(data) == f"must be at most {MAX_SIDE} pixels wide and high"
    huge = b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0" + b"\0\0\0\0" + b"\xff\xff\xff" * 2 + b"VP8L\0\0\0\0"
    assert rule_of(huge) == f"must be at most {MAX_SIDE} pixels wide and high"


@pytest.mark.parametrize("picture_format", ["PNG", "WEBP"])
def test_an_animation_is_refused(picture_format):
    frames = [Image.fromarray(pixels_of(6, 4, seed=seed)) for seed in range(3)]
    data = saved(frames[0], picture_format, save_all=True, append_images=frames[1:])
    assert rule_of(data) == "must be a single picture, not an animation"


def test_of_a_photograph_that_holds_a_second_one_the_first_is_read():
    first, second = (Image.fromarray(pixels_of(6, 4, seed=seed)) for seed in range(2))
    data = saved(first, "MPO", save_all=True, append_images=[second], quality=95)
    alone = read_picture(saved(first, "JPEG", quality=95), "picture")
    np.testing.assert_array_equal(read_picture(data, "picture"), alone)


@pytest.mark.parametrize("picture_format", ["GIF", "BMP", "TIFF", "ICO", "PPM", "TGA"])
def test_other_formats_are_refused_whatever_they_are_called(picture_format):
    assert rule_of(saved(Image.fromarray(RGB), picture_format)) == "must be a PNG, JPEG or WebP file"


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"%PDF-1.7", b"<svg/>", b"RIFF\0\0\0\0WAVE", b"\x89PNG", b"\xff\xd8"])
def test_what_is_no_picture_is_refused(data):
    assert rule_of(data) == "must be a PNG, JPEG or WebP file"


@pytest.mark.parametrize("picture_format", ["PNG", "JPEG", "WEBP"])
def test_a_file_that_was_cut_off_is_refused(picture_format):
    data = saved(Image.fromarray(pixels_of(64, 64)), picture_format)
    for end in (12, 20, 40, len(data) // 2, len(data) - 40):
        assert rule_of(data[:end])
