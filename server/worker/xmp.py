"""What a picture's file says in XMP of where the picture comes from: IPTC's digital source type, in anybody's file.

Source: XMP specification, part 3 (storage in files); IPTC Photo Metadata Standard 2025.1, Digital Source Type.
"""

from __future__ import annotations

import re
from typing import Final

from server.picture_info.png import PNG_SIGNATURE, XMP_KEYWORD, text_of_png
from server.worker.exif import jpeg_segments, webp_chunks

__all__ = ["source_type_of_file"]

_MAX_BYTES: Final = 2**16
_JPEG_MARK: Final = b"http://ns.adobe.com/xap/1.0/\0"
_APP1: Final = 0xE1
_SOURCE_TYPE: Final = re.compile(
    rb"DigitalSourceType(?:\s{0,9}=\s{0,9}[\"']|\s{1,9}rdf:resource=[\"']|\s{0,9}>)\s{0,9}"
    rb"(?:https?://[\w./-]{1,200}/)?([A-Za-z]{1,60})"
)
"""As an attribute, as a resource or as text; a term of the vocabulary, with or without its address."""


def source_type_of_file(data: bytes) -> str | None:
    """The term, such as `trainedAlgorithmicMedia`; None if the file does not say. Decodes no pixels."""
    found = _SOURCE_TYPE.search(_packet(data)[:_MAX_BYTES])
    return None if found is None else found[1].decode()


def _packet(data: bytes) -> bytes:
    if data.startswith(PNG_SIGNATURE):
        return (text_of_png(data, XMP_KEYWORD) or "").encode(errors="replace")
    if data.startswith(b"\xff\xd8"):
        bodies = (body for marker, body in jpeg_segments(data) if marker == _APP1 and body.startswith(_JPEG_MARK))
    else:
        bodies = (body for kind, body in webp_chunks(data) if kind == b"XMP ")
    return next(bodies, b"")
