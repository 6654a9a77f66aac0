"""Events that the engine reports about a request while it draws. No torch: pixels travel as numpy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from engine.errors import EngineError
    from engine.previews import RoughPicture

__all__ = [
    "EngineEvent",
    "Failed",
    "Finished",
    "ImageDrawn",
    "PhaseTimes",
    "PreviewTaken",
    "RanOutOfMemory",
    "StepTaken",
    "WorkItem",
    "WorkKind",
]

WorkKind = Literal["encode", "encode_image", "step", "decode", "upscale"]


@dataclass(frozen=True, slots=True)
class StepTaken:
    """One picture of a request has taken another denoising step."""

    request_id: str
    image_index: int
    step: int
    """Steps taken so far, from 1 to `steps`."""
    steps: int
    """Of this picture, as `GenerationParams.progress_steps` counts them."""


@dataclass(frozen=True, slots=True)
class PreviewTaken:
    """Something shows of a picture that is being drawn."""

    request_id: str
    image_index: int
    step: int
    """Model calls that it had taken."""
    picture: RoughPicture = field(repr=False)


@dataclass(frozen=True, slots=True)
class ImageDrawn:
    """One picture of a request is finished."""

    request_id: str
    image_index: int
    seed: int
    pixels: npt.NDArray[np.uint8] = field(repr=False)
    """(height, width, 3), RGB."""


@dataclass(frozen=True, slots=True)
class PhaseTimes:
    """Where a request's time in the engine went; work for others between its steps included."""

    encode_s: float
    denoise_s: float
    decode_s: float


@dataclass(frozen=True, slots=True)
class Finished:
    """Every picture of the request has been handed over."""

    request_id: str
    times: PhaseTimes
    truncated_tokens: int
    """Tokens of prompt and negative prompt that the text encoder could not read."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The request has ended without all its pictures. Its neighbours go on."""

    request_id: str
    error: EngineError


@dataclass(frozen=True, slots=True)
class WorkItem:
    """One piece of work has been done; for estimates, metrics and the watchdog."""

    kind: WorkKind
    seconds: float
    rows: int
    """Model rows in the call, padding included."""
    height: int
    """Pixels; 0 for text."""
    width: int
    """Pixels; 0 for text."""
    rows_by_request: Mapping[str, int]
    """Request -> its own rows among them: whose work it was. Padding is nobody's."""


@dataclass(frozen=True, slots=True)
class RanOutOfMemory:
    """A piece of work had no room on the device. It is tried again with less beside it, or its request fails."""

    kind: WorkKind


EngineEvent = StepTaken | PreviewTaken | ImageDrawn | Finished | Failed | WorkItem | RanOutOfMemory
