"""The protocol between the gateway and the process that reads uploads: one question, one answer, as msgpack frames.

A frame is the body's length (4 bytes, big-endian) and the body. With a question travels the file descriptor of a file
that holds the request's whole body.
"""

from __future__ import annotations

import struct
from typing import Final, Literal

import msgspec

__all__ = [
    "HEADER",
    "MAX_FILES",
    "MAX_FILE_BYTES",
    "MAX_REST_BYTES",
    "Answer",
    "Layout",
    "NoRoom",
    "NotJson",
    "PictureFile",
    "PictureInfo",
    "PictureKind",
    "ReadInfo",
    "ReadUpload",
    "Refused",
    "RefusedError",
    "Upload",
    "decode_answer",
    "decode_question",
    "frame",
]

HEADER: Final = struct.Struct(">I")

MAX_FILE_BYTES: Final = 16 * 2**20
"""Of one picture, as a file."""
MAX_FILES: Final = 6
"""Pictures of one request."""
MAX_REST_BYTES: Final = 2**20
"""Of a request without its pictures: as of one that has none."""

PictureKind = Literal["picture", "mask", "transparent mask", "either mask"]
"""What a field holds: a picture is read in colour, a mask as grey. A transparent mask is white where it is transparent
(OpenAI's); either mask is its own alpha channel if it has a real one, else grey (A1111's)."""

Layout = Literal["request", "flat", "raw"]
"""How a body that is not JSON is made up: a form with a part `request` and pictures; a form with a part for each field;
or a picture, which is the only field's."""


class _Message(msgspec.Struct, frozen=True, tag=True):
    pass


class ReadUpload(_Message, frozen=True):
    """Read the body of this request."""

    content_type: str
    """Its header: JSON or multipart/form-data."""
    fields: dict[str, PictureKind]
    """Places that hold pictures, names joined by dots, `*` for every member of a list."""
    folder: str
    """Where to write them."""
    layout: Layout = "request"


class ReadInfo(_Message, frozen=True):
    """Read how the picture in the body of this request was drawn."""

    content_type: str
    """Its header: JSON, multipart/form-data or a picture's."""


class PictureFile(msgspec.Struct, frozen=True):
    """A picture that was read and written as a PNG file."""

    name: str
    """In the folder."""
    sha256: str
    """Of its pixels, its size and its kind, hexadecimal: equal for equal pictures, whatever file they came in."""
    width: int
    """Pixels."""
    height: int
    num_bytes: int
    """Of the file."""


class Upload(_Message, frozen=True):
    """The request as it was read."""

    rest: bytes
    """JSON; the fields with pictures are left out."""
    pictures: dict[str, PictureFile]
    """Place -> its picture."""


class PictureInfo(_Message, frozen=True):
    """What a picture's file says of how it was drawn."""

    text: str | None
    """How it was drawn; None: not said."""
    source_type: str | None = None
    """IPTC's digital source type; None: not said."""


class Refused(_Message, frozen=True):
    """The request breaks a rule."""

    why: Literal["malformed", "too_large", "unsupported", "invalid"]
    rule: str
    """A phrase after the field's name; without a field a sentence."""
    field: str | None = None
    value: str | None = None


class NotJson(_Message, frozen=True):
    """The JSON of the request cannot be parsed."""

    why: str
    position: int
    """Characters."""


class NoRoom(_Message, frozen=True):
    """A picture could not be written."""

    why: str


class RefusedError(Exception):
    """Carries an answer to where it is given."""

    def __init__(self, answer: Refused | NotJson | NoRoom) -> None:
        super().__init__()
        self.answer = answer


Answer = Upload | PictureInfo | Refused | NotJson | NoRoom

_encoder = msgspec.msgpack.Encoder()
_question = msgspec.msgpack.Decoder(ReadUpload | ReadInfo)
_answer = msgspec.msgpack.Decoder(Answer)


def frame(message: ReadUpload | ReadInfo | Answer) -> bytes:
    """The message as it travels, its length in front."""
    body = _encoder.encode(message)
    return HEADER.pack(len(body)) + body


def decode_question(body: bytes) -> ReadUpload | ReadInfo:
    """Read a question from a frame's body.

    Raises:
        msgspec.DecodeError: it is not one.
    """
    question: ReadUpload | ReadInfo = _question.decode(body)
    return question


def decode_answer(body: bytes) -> Answer:
    """Read an answer from a frame's body.

    Raises:
        msgspec.DecodeError: it is not one.
    """
    answer: Answer = _answer.decode(body)
    return answer
