"""What the file of one picture says of it, by what its request wants said."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from engine.params import GenerationParams
from server.picture_info.infotext import info_text

__all__ = ["NOTHING", "FileInfo", "ImageMetadata", "file_info"]

ImageMetadata = Literal["full", "none"]
"""Whether files say how their pictures were drawn, and that a model drew them."""


class FileInfo(NamedTuple):
    """What a file says of its picture."""

    text: str | None
    """How it was drawn; None: not said."""
    is_drawn: bool
    """Whether a model has drawn it."""


NOTHING: Final = FileInfo(None, is_drawn=False)


def file_info(
    params: GenerationParams,
    index: int,
    model_name: str,
    image_metadata: ImageMetadata,
    model_hash: str | None = None,
) -> FileInfo:
    """What is said of one picture of a request.

    Args:
        params: of the request.
        index: of the picture.
        model_name: of what draws.
        image_metadata: as the request wants.
        model_hash: of what draws, if it is known.
    """
    if image_metadata == "none":
        return NOTHING
    # What was only enlarged is as much a model's work as it was before, which nobody knows here.
    return FileInfo(info_text(params.of_image(index), model_name, model_hash), is_drawn=params.upscaler is None)
