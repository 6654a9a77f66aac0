"""multipart/form-data -> its parts, whole and named once each. Knows nothing of pictures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from server.worker.upload_messages import MAX_FILE_BYTES, MAX_FILES, Refused, RefusedError

__all__ = ["form_parts"]

_CHUNK: Final = 2**20
_LONGEST_BOUNDARY: Final = 70
"""RFC 2046, 5.1.1."""


def form_parts(body: bytes, content_type: str, max_parts: int = MAX_FILES + 1) -> dict[str, bytes]:
    """The parts of a form, by name; at most so many.

    Raises:
        RefusedError: it is not such a form, was cut off, or has too many or too large parts.
    """
    _, options = parse_options_header(content_type.encode("latin-1", "replace"))
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= _LONGEST_BOUNDARY:
        raise _malformed(f"the header Content-Type must name a boundary of 1 to {_LONGEST_BOUNDARY} characters")
    found: dict[str, bytes] = {}
    try:
        for name, data in _named_parts(body, boundary):
            if name in found:
                raise _malformed("the body must hold each part once")
            if len(found) >= max_parts:
                raise _too_large(f"the form must have at most {max_parts} parts")
            found[name] = data
    except FormParserError:
        raise _malformed("the body must be valid multipart/form-data") from None
    return found


def _named_parts(body: bytes, boundary: bytes) -> Iterator[tuple[str, bytes]]:
    reader = _PartReader(boundary)
    for at in range(0, len(body), _CHUNK):
        reader.take(body[at : at + _CHUNK])
        yield from reader.taken()
    if not reader.is_whole:
        raise _malformed("the body must end with its boundary: it was cut off")


class _PartReader:
    """Collects what python-multipart finds."""

    def __init__(self, boundary: bytes) -> None:
        self.is_whole = False
        """Whether the form's end has come."""
        self._disposition = self._field = self._value = b""
        self._data = bytearray()
        self._finished: list[tuple[str, bytes]] = []
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_part_data": self._take_data,
                "on_part_end": self._finish,
                "on_header_field": self._take_header_field,
                "on_header_value": self._take_header_value,
                "on_header_end": self._finish_header,
                "on_end": self._end,
            },
        )

    def take(self, chunk: bytes) -> None:
        """Parse some more."""
        self._parser.write(chunk)

    def taken(self) -> list[tuple[str, bytes]]:
        """The parts that were finished since the last call, with their names."""
        finished, self._finished = self._finished, []
        return finished

    def _begin(self) -> None:
        self._disposition, self._data = b"", bytearray()

    def _take_header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _take_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _finish_header(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value
        self._field = self._value = b""

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        self._data += data[start:end]
        if len(self._data) > MAX_FILE_BYTES:
            rule = f"must be a file of at most {MAX_FILE_BYTES} bytes"
            raise RefusedError(Refused("too_large", rule, self._name()))

    def _finish(self) -> None:
        self._finished.append((self._name(), bytes(self._data)))

    def _end(self) -> None:
        self.is_whole = True

    def _name(self) -> str:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name")
        if not name:
            raise _malformed("every part must have a name (Content-Disposition: form-data; name=...)")
        return str(name, "utf-8", "replace")


def _malformed(rule: str) -> RefusedError:
    return RefusedError(Refused("malformed", rule))


def _too_large(rule: str) -> RefusedError:
    return RefusedError(Refused("too_large", rule))
