"""Fields of a request that hold a picture: in JSON base64, in a form a file, and behind that its file on the disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from server.store.input_files import UploadedPicture
from server.worker.upload_messages import PictureKind

__all__ = ["EitherMask", "Mask", "Picture", "TransparentMask", "picture_fields"]


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
TransparentMask = Annotated[UploadedPicture, _PictureField("transparent mask")]
EitherMask = Annotated[UploadedPicture, _PictureField("either mask")]


def picture_fields(model: type[BaseModel]) -> Mapping[str, PictureKind]:
    """The places of a request that hold pictures, and what each is read as.

    A place is the names on the way to it, joined by dots, with `*` for every member of a list.
    """
    return {
        ".".join([name, *way]): kind
        for name, field in model.model_fields.items()
        for way, kind in _found(field.annotation, field.metadata)
    }


def _found(annotation: object, marks: Iterable[object]) -> Iterator[tuple[list[str], PictureKind]]:
    for mark in marks:
        if isinstance(mark, _PictureField):
            yield [], mark.kind
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from ((place.split("."), kind) for place, kind in picture_fields(annotation).items())
    is_list = get_origin(annotation) is list
    for part in get_args(annotation):
        for way, kind in _found(part, getattr(part, "__metadata__", ())):
            yield ["*", *way] if is_list else way, kind


def _checked(value: object) -> UploadedPicture:
    if not isinstance(value, UploadedPicture):
        raise PydanticCustomError("picture", "must be a picture file, in base64 or as a part of a form")
    return value


def _sha256_of(picture: UploadedPicture) -> str:
    return picture.sha256
