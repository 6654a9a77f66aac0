"""The body of a request with a picture -> the information text in its file. Decodes no pixels; knows no socket.

The picture is the body itself, the part `image` of a form, or base64 in the field `image` of JSON.
"""

from __future__ import annotations

from typing import Final

from server.worker.exif import is_picture_file, text_of_file
from server.worker.upload_messages import MAX_FILE_BYTES, NoRoom, NotJson, PictureInfo, ReadInfo, Refused, RefusedError
from server.worker.upload_reading import file_of, json_of
from server.worker.xmp import source_type_of_file

__all__ = ["read_info"]

_FIELD: Final = "image"


def read_info(body: bytes, question: ReadInfo) -> PictureInfo | Refused | NotJson | NoRoom:
    """Read the information text of a picture."""
    try:
        file = _file(body, question.content_type.partition(";")[0].strip().lower(), question.content_type)
    except RefusedError as error:
        return error.answer
    if len(file) > MAX_FILE_BYTES:
        return Refused("too_large", f"must be a file of at most {MAX_FILE_BYTES} bytes", _FIELD)
    if not is_picture_file(file):
        return Refused("unsupported", "must be a PNG, JPEG or WebP file", _FIELD)
    return PictureInfo(text_of_file(file), source_type_of_file(file))


def _file(body: bytes, media_type: str, content_type: str) -> bytes:
    """The picture's file.

    Raises:
        RefusedError: there is none.
    """
    if media_type.startswith("image/"):
        return body
    if media_type == "multipart/form-data":
        from server.worker.form_parts import form_parts  # noqa: PLC0415 -- few bodies are forms

        parts: dict[str, bytes] = form_parts(body, content_type)
        found = parts.pop(_FIELD, None)
        others = parts.keys()
    else:
        request = json_of(body)
        if not isinstance(request, dict):
            raise RefusedError(Refused("invalid", "must be a JSON object", "body"))
        value = request.pop(_FIELD, None)
        if value is not None and not isinstance(value, str):
            raise RefusedError(Refused("invalid", "must be a picture file, in base64 or as a part of a form", _FIELD))
        found = None if value is None else file_of(_FIELD, value)
        others = request.keys()
    for name in others:
        raise RefusedError(Refused("invalid", "is not a field of this request", name))
    if found is None:
        raise RefusedError(Refused("invalid", "is required", _FIELD))
    return found
