"""Fields of a request that hold a picture: in JSON base64, in a form a file, and behind that its file on the disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_args

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from server.store.input_files import UploadedPicture
from server.worker.upload_messages import PictureKind

__all__ = ["Mask", "Picture", "picture_fields"]


@dataclass(frozen=True, slots=True)
class _PictureField:
    """Makes pydantic take an `UploadedPicture`, and describe it as what callers send."""

    kind: PictureKind

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401 -- pydantic's own
        return core_schema.no_info_plain_validator_function(
            _checked,
            # What makes two requests equal is what is in their pictures.
            serialization=core_schema.plain_serializer_function_ser_schema(_sha256_of),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "contentEncoding": "base64"}


Picture = Annotated[UploadedPicture, _PictureField("picture")]
Mask = Annotated[UploadedPicture, _PictureField("mask")]


def picture_fields(model: type[BaseModel]) -> Mapping[str, PictureKind]:
    """The fields of a request that hold pictures, and what each is read as."""
    return {
        name: mark.kind
        for name, field in model.model_fields.items()
        for mark in (*field.metadata, *_marks(field.annotation))
        if isinstance(mark, _PictureField)
    }


def _marks(annotation: object) -> Iterator[object]:
    """What stands beside the types of an annotation, also of one that may be null."""
    for part in (annotation, *get_args(annotation)):
        yield from getattr(part, "__metadata__", ())


def _checked(value: object) -> UploadedPicture:
    if not isinstance(value, UploadedPicture):
        raise PydanticCustomError("picture", "must be a picture file, in base64 or as a part of a form")
    return value


def _sha256_of(picture: UploadedPicture) -> str:
    return picture.sha256
