"""The JSON of `POST /v1/image-info`: how a picture was drawn, as far as its file says, and the request for it."""

from __future__ import annotations

import json
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from server.picture_info.fields import PICTURE_FIELDS
from server.picture_info.infotext import read_info
from server.schemas.generation import GenerateRequest
from server.schemas.jobs import JobInput

__all__ = ["ImageInfo"]

_CALLERS_OWN: Final = frozenset({"image_metadata", "output_format", "user"})
"""Fields that say nothing of how a picture was drawn: a file does not choose them."""


class ImageInfo(BaseModel):
    """What a picture's file says of how it was drawn."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    parameters: str | None
    """The text in the file, in AUTOMATIC1111's format; null if it has none."""
    request: dict[str, Any] | None
    """A body for `POST /generate` that draws it again, as far as the text says; null without a text, and for a picture
    that nothing was drawn for."""
    inputs: dict[str, JobInput]
    """The pictures that it was drawn over, which are no part of the file: `image`, `mask`. The request needs them."""
    unknown: dict[str, str]
    """What else the text says, under its own keys."""
    digital_source_type: str | None
    """IPTC's term for where the picture comes from, as the file's XMP says: `trainedAlgorithmicMedia` if a model drew
    it; null if the file does not say."""

    @classmethod
    def of(cls, text: str | None, source_type: str | None = None) -> ImageInfo:
        """Read a text.

        Args:
            text: whatever was in the file; None: there was none.
            source_type: of the file.
        """
        if text is None:
            return cls(parameters=None, request=None, inputs={}, unknown={}, digital_source_type=source_type)
        info = read_info(text)
        inputs = {name: JobInput(**info.fields[name]) for name in PICTURE_FIELDS if name in info.fields}
        fields = {name: value for name, value in info.fields.items() if name not in inputs and value != ""}
        request, refused = _checked(fields)
        return cls(
            parameters=text,
            request=None if "upscaler" in fields else request,
            inputs=inputs,
            digital_source_type=source_type,
            unknown={name: _text_of(value) for name, value in {**info.unknown, **refused}.items()},
        )


def _text_of(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.encode(errors="replace").decode()  # JSON in a file may hold lone surrogates


def _checked(fields: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields that a request may have with the values that they may have, and the others."""
    known = GenerateRequest.model_fields.keys() - _CALLERS_OWN
    request = {name: value for name, value in fields.items() if name in known}
    refused = {name: value for name, value in fields.items() if name not in known}
    try:
        GenerateRequest.model_validate(request)
    except ValidationError as error:
        for name in {str(finding["loc"][0]) for finding in error.errors()} & request.keys():
            refused[name] = request.pop(name)
    return request, refused
