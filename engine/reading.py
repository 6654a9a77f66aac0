"""What is done for one picture alone before it can step: its prompts and its image are read, or it is enlarged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import interpolate

from engine.errors import NotFiniteError
from engine.events import EngineEvent, StepTaken, WorkItem, WorkKind
from engine.models.base import DiffusionModel, EncodedImage
from engine.picture import Picture
from engine.picture_params import HiresUpscaler
from engine.pictures.resize import Pixels, resize
from engine.pictures.tiles import lanczos_tile, tiles
from engine.prompts.encoder import PromptEncoder

__all__ = ["DOING", "PictureReader", "check_finite"]

DOING: Final[Mapping[WorkKind, str]] = MappingProxyType(
    {"encode": "reading the prompt", "encode_image": "reading the image", "upscale": "enlarging the image"}
)
"""Kind of work -> what a message calls it."""

_INTERPOLATIONS: Final[Mapping[HiresUpscaler, tuple[str, bool]]] = MappingProxyType(
    {
        "latent": ("bilinear", False),
        "latent-antialiased": ("bilinear", True),
        "latent-bicubic": ("bicubic", False),
        "latent-nearest": ("nearest-exact", False),
    }
)
"""torch's mode, and whether it smooths; as A1111's latent upscalers of these names."""

MAX_BLANKS: Final = 8
"""Sizes whose middle grey is remembered."""


class PictureReader:
    """Reads prompts and images, one picture a call: their shapes depend on that picture alone."""

    def __init__(self, model: DiffusionModel, clock: Callable[[], float]) -> None:
        self._model = model
        self._prompts = PromptEncoder(model)
        self._blanks: dict[tuple[int, int], EncodedImage] = {}
        """Latent size -> middle grey, as inpainting models are shown it without a mask."""
        self._clock = clock

    @staticmethod
    def next_kind(picture: Picture) -> WorkKind:
        """What `read` does next, if the picture is not ready."""
        if not picture.legs:
            return "upscale"
        return "encode_image" if picture.leg.conditionings else "encode"

    def read(self, picture: Picture) -> list[EngineEvent]:
        """Do the next thing; nothing has changed if this raises."""
        match self.next_kind(picture):
            case "upscale":
                return self._enlarge(picture)
            case "encode":
                return self._read_prompts(picture)
            case _:
                return self._read_masked(picture) if picture.leg.has_begun else self._read_image(picture)

    def _read_prompts(self, picture: Picture) -> list[EngineEvent]:
        began, leg = self._clock(), picture.leg
        told = leg.timesteps, leg.plan.told_sizes, leg.plan.guidance_scale
        conditionings = tuple(self._prompts.encode(prompt, leg.num_chunks, *told) for prompt in leg.prompts.prompts)
        leg.send_noise()
        if leg.plan.start == "leg" and not picture.params.enlarges_pixels:
            leg.begin(self._enlarged_latents(picture))
            picture.legs[picture.leg_index - 1].release()
        leg.conditionings = conditionings
        return [_work("encode", self._clock() - began, picture, leg.plan.num_rows * leg.num_chunks, 0, 0)]

    def _enlarged_latents(self, picture: Picture) -> torch.Tensor:
        hires = picture.params.hires
        if hires is None:
            raise AssertionError("a second leg without hires")
        mode, smooths = _INTERPOLATIONS[hires.upscaler]
        before, leg = picture.legs[picture.leg_index - 1], picture.leg
        return interpolate(before.latents[None], size=leg.shape[1:], mode=mode, antialias=smooths)[0]

    def _read_image(self, picture: Picture) -> list[EngineEvent]:
        events: list[EngineEvent] = []
        leg, source = picture.leg, picture.source
        if leg.plan.start == "leg":
            encoded = self._encode(self._enlarged_pixels(picture, events), picture, events)
        elif source is None:
            raise AssertionError("an image is asked for that never came")
        else:
            if source.encoded is None:
                source.encoded = self._encode(source.base.pixels, picture, events)
            encoded = source.encoded
        leg.begin(encoded.sampled(leg.noise.image))
        if leg.plan.start == "leg":
            picture.legs[picture.leg_index - 1].release()
        picture.steps_taken += 1
        events.append(
            StepTaken(picture.request_id, picture.image_index, picture.steps_taken, picture.params.progress_steps)
        )
        return events

    def _read_masked(self, picture: Picture) -> list[EngineEvent]:
        """What an inpainting model is shown: without a mask everything is drawn, and nothing is known."""
        events: list[EngineEvent] = []
        leg, source = picture.leg, picture.source
        if leg.cells is None or source is None or source.base.cells is None:
            leg.show_mask(self._encoded_blank(picture, events))
            return events
        if source.masked is None:
            source.masked = self._encode(source.base.pixels, picture, events, source.base.cells)
        leg.show_mask(source.masked)
        return events

    def _encoded_blank(self, picture: Picture, events: list[EngineEvent]) -> EncodedImage:
        _, *size = picture.leg.shape
        key = (size[0], size[1])
        if key not in self._blanks:
            if len(self._blanks) >= MAX_BLANKS:
                self._blanks.pop(next(iter(self._blanks)))
            pixels = np.zeros((picture.height, picture.width, 3), np.uint8)
            self._blanks[key] = self._encode(pixels, picture, events, np.ones(key, np.bool_))
        return self._blanks[key]

    def _enlarged_pixels(self, picture: Picture, events: list[EngineEvent]) -> Pixels:
        began, before, plan = self._clock(), picture.legs[picture.leg_index - 1], picture.leg.plan
        check_finite(before.latents)
        pixels = resize(self._model.decode(before.latents).cpu().numpy(), plan.height, plan.width)
        first = before.plan
        events.append(_work("decode", self._clock() - began, picture, 1, first.height, first.width))
        return pixels

    def _encode(
        self, pixels: Pixels, picture: Picture, events: list[EngineEvent], hidden: npt.NDArray[np.bool_] | None = None
    ) -> EncodedImage:
        began = self._clock()
        # A copy: torch warns of arrays that it may not write to.
        cells = None if hidden is None else torch.from_numpy(hidden.copy())
        encoded = self._model.encode_image(torch.from_numpy(pixels.copy()), cells)
        events.append(_work("encode_image", self._clock() - began, picture, 1, picture.height, picture.width))
        return encoded

    def _enlarge(self, picture: Picture) -> list[EngineEvent]:
        """Make one tile."""
        began, params, source = self._clock(), picture.params, picture.source
        if source is None:
            raise AssertionError("an image is asked for that never came")
        if picture.enlarged is None:
            picture.enlarged = np.empty((params.height, params.width, 3), np.uint8)
            picture.tiles = list(tiles(params.height, params.width))
        tile = picture.tiles[0]
        tile.of(picture.enlarged)[:] = lanczos_tile(source.base.pixels, params.height, params.width, tile)
        picture.tiles.pop(0)
        return [_work("upscale", self._clock() - began, picture, 1, tile.height, tile.width)]


def check_finite(latents: torch.Tensor) -> None:
    """Check latents before they are decoded: a picture or an error, never a black square.

    Raises:
        NotFiniteError: they hold infinities or NaN.
    """
    if not bool(latents.isfinite().all()):
        raise NotFiniteError("the model produced non-finite values; try another sampler or a lower guidance_scale")


def _work(kind: WorkKind, seconds: float, picture: Picture, rows: int, height: int, width: int) -> WorkItem:
    return WorkItem(kind, seconds, rows, height, width, rows_by_request={picture.request_id: rows})
