"""Chunks of a PNG file that say how it was drawn: written, and read from anybody's file.

Source: PNG specification (third edition), 5.3 chunk layout, 11.3.3 text.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Final

from server.picture_info.file_info import FileInfo
from server.picture_info.grammar import MAX_TEXT_BYTES
from server.picture_info.provenance import XMP

__all__ = ["KEYWORD", "PNG_SIGNATURE", "XMP_KEYWORD", "info_chunks", "png_chunk", "png_chunks", "text_of_png"]

PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"

KEYWORD: Final = b"parameters"
"""Of the information text."""
XMP_KEYWORD: Final = b"XML:com.adobe.xmp"


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk, with its length and its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))


def info_chunks(info: FileInfo) -> bytes:
    """What stands between a file's header and its pixels."""
    chunks = b""
    if info.text is not None:
        try:
            chunks += png_chunk(b"tEXt", KEYWORD + b"\0" + info.text.encode("latin-1"))
        except UnicodeEncodeError:
            chunks += _international(KEYWORD, info.text.encode())
    return chunks + (_international(XMP_KEYWORD, XMP) if info.is_drawn else b"")


def png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Kind and data of each chunk that is whole; checksums are not looked at."""
    view, at = memoryview(data), len(PNG_SIGNATURE)
    while at + 12 <= len(view):
        (length,) = struct.unpack_from(">I", view, at)
        if at + 12 + length > len(view):
            return
        yield bytes(view[at + 4 : at + 8]), view[at + 8 : at + 8 + length]
        at += 12 + length


def text_of_png(data: bytes, keyword: bytes = KEYWORD) -> str | None:
    """The first text of a file under a keyword; None if it has none that is read."""
    for kind, content in png_chunks(data):
        if kind in {b"tEXt", b"zTXt", b"iTXt"} and bytes(content[: len(keyword) + 1]) == keyword + b"\0":
            text = _text_of(kind, content[len(keyword) + 1 :])
            if text is not None:
                return text
    return None


def _international(keyword: bytes, text: bytes) -> bytes:
    """Text in UTF-8, not compressed, in no language."""
    return png_chunk(b"iTXt", keyword + bytes(5) + text)


def _text_of(kind: bytes, rest: memoryview) -> str | None:
    """The text behind a chunk's keyword."""
    if kind == b"tEXt":
        return str(rest, "latin-1") if len(rest) <= MAX_TEXT_BYTES else None
    if kind == b"zTXt":
        plain = _inflated(rest[1:])
        return None if plain is None else plain.decode("latin-1")
    is_compressed = bytes(rest[:1]) == b"\1"
    _, ended, rest_bytes = bytes(rest[2 : MAX_TEXT_BYTES * 2]).partition(b"\0")  # language
    _, ended_again, content = rest_bytes.partition(b"\0")  # translated keyword
    if not ended or not ended_again:
        return None
    plain = _inflated(memoryview(content)) if is_compressed else content
    return plain.decode(errors="replace") if plain is not None and len(plain) <= MAX_TEXT_BYTES else None


def _inflated(content: memoryview) -> bytes | None:
    """What was compressed; None if it is damaged or too long."""
    inflating = zlib.decompressobj()
    try:
        plain = inflating.decompress(content, MAX_TEXT_BYTES)
    except zlib.error:
        return None
    return plain if inflating.eof else None
