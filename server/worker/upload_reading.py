"""The body of a request with pictures -> its JSON without them, and a plain PNG file for each. Knows no socket.

JSON holds a picture as base64 or as a `data:` URL, multipart/form-data as a part of its own, beside the part `request`
with the JSON. Nothing is ever fetched from an address.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from server.store.input_files import UNFINISHED
from server.strict_json import RepeatedNameError, strict_json
from server.worker.image_files import encode_png
from server.worker.picture_reading import PictureError, name_of, read_picture
from server.worker.upload_messages import (
    MAX_FILE_BYTES,
    MAX_FILES,
    MAX_REST_BYTES,
    Answer,
    NoRoom,
    NotJson,
    PictureFile,
    ReadUpload,
    Refused,
    RefusedError,
    Upload,
)

__all__ = ["file_of", "json_of", "read_upload"]

REQUEST_PART: Final = "request"

_ADDRESS: Final = re.compile(r"\s*(?!data:)[A-Za-z][A-Za-z0-9+.-]{1,15}:", re.ASCII)
_DATA_URL: Final = re.compile(r"\s*data:([^,]{0,200}),", re.ASCII)
_BLANKS: Final = re.compile(r"\s+", re.ASCII)
_INDEX: Final = re.compile(r"(?<=\.)\d+(?=\.|$)")
_MAX_FORM_FIELDS: Final = 64
_BASE64_BYTES: Final = MAX_FILE_BYTES * 4 // 3 + 4


def read_upload(body: bytes, question: ReadUpload) -> Answer:
    """Read a request, and write its pictures as PNG files.

    Args:
        body: all of it.
        question: what it is, and where the pictures go.
    """
    written: list[PictureFile] = []
    try:
        request, files = _request_and_files(body, question)
        pictures = {}
        for field, data in files.items():
            picture = _picture(field, data, question)
            written.append(picture)
            pictures[field] = picture
        return Upload(json.dumps(request).encode(), pictures)
    except Exception as error:
        for picture in written:
            (Path(question.folder) / picture.name).unlink(missing_ok=True)
        if not isinstance(error, RefusedError):
            raise
        return error.answer


def _request_and_files(body: bytes, question: ReadUpload) -> tuple[object, dict[str, bytes]]:
    """The request without its pictures, and the pictures as files.

    Raises:
        RefusedError: it is not such a request.
    """
    media_type = question.content_type.partition(";")[0].strip().lower()
    if media_type != "application/json" and question.layout == "raw":
        [field] = question.fields
        return {}, {field: body}
    if media_type == "multipart/form-data" and question.layout == "flat":
        return _flat_form(body, question)
    text, files = _split(body, question)
    request = json_of(text)
    num_rest_bytes = len(text)
    for pattern in question.fields:
        for field, value in _taken(request, pattern.split("."), ""):
            if field in files:
                raise _invalid(field, "must be sent once, in the JSON or as a part")
            num_rest_bytes -= len(value)
            files[field] = file_of(field, value)
    if num_rest_bytes > MAX_REST_BYTES:
        rule = f"the request must have at most {MAX_REST_BYTES} bytes without its pictures"
        raise RefusedError(Refused("too_large", rule))
    if len(files) > MAX_FILES:
        raise RefusedError(Refused("too_large", f"the request must have at most {MAX_FILES} pictures"))
    return request, files


def _taken(values: object, pattern: list[str], place: str) -> Iterator[tuple[str, str]]:
    """The texts at the places of a pattern, each with its place. They are taken out; in a list None is left."""
    name, *rest = pattern
    if name == "*":
        members: Iterable[tuple[str | int, object]] = enumerate(values) if isinstance(values, list) else ()
    else:
        members = [(name, values[name])] if isinstance(values, dict) and name in values else ()
    for key, value in list(members):
        here = f"{place}{key}"
        if rest:
            yield from _taken(value, rest, f"{here}.")
        elif isinstance(value, str):
            if isinstance(values, dict):
                del values[key]
            else:
                values[key] = None  # type: ignore[index]  # a list, as was seen above
            yield here, value


def _flat_form(body: bytes, question: ReadUpload) -> tuple[object, dict[str, bytes]]:
    """A form with a part for each field. `image[]` is how some programs write a list: here, of one."""
    from server.worker.form_parts import form_parts  # noqa: PLC0415 -- as below

    request: dict[str, str] = {}
    files: dict[str, bytes] = {}
    for part, data in form_parts(body, question.content_type, max_parts=_MAX_FORM_FIELDS).items():
        name = part.removesuffix("[]")
        if name in files or name in request:
            raise _invalid(name, "must be sent once")
        if name in question.fields:
            if data:
                files[name] = data
            continue
        try:
            request[name] = data.decode()
        except UnicodeDecodeError:
            raise _invalid(name, "must be text in UTF-8") from None
    if sum(len(value) for value in request.values()) > MAX_REST_BYTES:
        rule = f"the request must have at most {MAX_REST_BYTES} bytes without its pictures"
        raise RefusedError(Refused("too_large", rule))
    return request, files


def _split(body: bytes, question: ReadUpload) -> tuple[bytes, dict[str, bytes]]:
    """The JSON of a request, and the files that came beside it."""
    if question.content_type.partition(";")[0].strip().lower() != "multipart/form-data":
        return body, {}
    from server.worker.form_parts import form_parts  # noqa: PLC0415 -- most uploads are JSON

    parts = form_parts(body, question.content_type)
    if REQUEST_PART not in parts:
        raise _invalid(REQUEST_PART, "is required: a part with the request as JSON")
    text = parts.pop(REQUEST_PART)
    for name in parts:
        if name not in question.fields:
            raise _invalid(name, "is not a picture of this request")
    # A form's file field that was left empty is sent all the same.
    return text, {name: data for name, data in parts.items() if data}


def json_of(text: bytes) -> object:
    """Parse a body.

    Raises:
        RefusedError: it cannot be parsed.
    """
    try:
        return strict_json(text)
    except json.JSONDecodeError as error:
        raise RefusedError(NotJson(error.msg, error.pos)) from None
    except RepeatedNameError as error:
        raise RefusedError(Refused("malformed", str(error))) from None
    except MemoryError:
        raise RefusedError(Refused("too_large", "the request needs more memory to be read than there is")) from None
    except (UnicodeDecodeError, RecursionError, ValueError):
        raise RefusedError(
            Refused("malformed", "the body must be valid JSON in UTF-8, and not nested deeply")
        ) from None


def file_of(field: str, text: str) -> bytes:
    """The file that stands in a JSON field.

    Raises:
        RefusedError: there is none.
    """
    if _ADDRESS.match(text):
        raise _invalid(field, "must be the picture itself, in base64 or as a data: URL; addresses are not fetched")
    found = _DATA_URL.match(text)
    if found is not None:
        if not found[1].lower().endswith(";base64"):
            raise _invalid(field, "must be in base64 if it is a data: URL (data:image/png;base64,...)")
        text = text[found.end() :]
    if len(text) > _BASE64_BYTES:
        text = _BLANKS.sub("", text)  # as programs break their lines
        if len(text) > _BASE64_BYTES:
            raise _too_large(field)
    try:
        data = base64.b64decode(_BLANKS.sub("", text), validate=True)
    except (binascii.Error, ValueError):
        raise _invalid(field, "must be a picture file in base64") from None
    return data


def _picture(field: str, data: bytes, question: ReadUpload) -> PictureFile:
    if len(data) > MAX_FILE_BYTES:
        raise _too_large(field)
    try:
        pixels = read_picture(data, question.fields[_INDEX.sub("*", field)])
    except PictureError as error:
        if error.value is None:
            raise RefusedError(Refused("unsupported", error.rule, field)) from None
        raise RefusedError(Refused("invalid", error.rule, field, error.value)) from None
    name = None
    try:
        descriptor, path = tempfile.mkstemp(prefix=UNFINISHED, dir=question.folder)
        name = Path(path).name
        file = encode_png(pixels)
        with os.fdopen(descriptor, "wb") as out:
            out.write(file)
    except OSError as error:
        if name is not None:
            (Path(question.folder) / name).unlink(missing_ok=True)
        raise RefusedError(NoRoom(error.strerror or type(error).__name__)) from None
    return PictureFile(name, name_of(pixels), pixels.shape[1], pixels.shape[0], len(file))


def _invalid(field: str, rule: str) -> RefusedError:
    return RefusedError(Refused("invalid", rule, field))


def _too_large(field: str) -> RefusedError:
    return RefusedError(Refused("too_large", f"must be a file of at most {MAX_FILE_BYTES} bytes", field))
