"""What a request's pictures become before any network: what is encoded, drawn anew, and what it is laid over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.errors import InvalidParamsError
from engine.params import GenerationParams, InputImage, MaskWish
from engine.pictures.canvas import expanded, filled
from engine.pictures.composite import laid_over, pasted
from engine.pictures.mask import MARKED, Box, blurred, crop_region, latent_cells
from engine.pictures.resize import Pixels, as_grey, resize, resize_mask

__all__ = ["Base", "make_base", "picture_of"]


@dataclass(frozen=True, slots=True, eq=False)
class Base:
    """What a request draws over."""

    pixels: Pixels
    """(H, W, 3): what the network's encoder sees, in the size that is drawn."""
    cells: npt.NDArray[np.bool_] | None = None
    """(h, w), the latents that are drawn anew; None: all."""
    old: Pixels | None = None
    """(height, width, 3) of the answer; None: what is drawn is the answer."""
    soft_mask: Pixels | None = None
    """(height, width): how much of what is drawn shows in the answer. Set where `old` is."""
    box: Box | None = None
    """Of the answer: what is drawn; None: all of it."""

    def finished(self, drawn: Pixels) -> Pixels:
        """The answer.

        Args:
            drawn: (H, W, 3), what came of the network.
        """
        if self.old is None or self.soft_mask is None:
            return drawn
        if self.box is None:
            return laid_over(self.old, drawn, self.soft_mask)
        return pasted(self.old, drawn, self.soft_mask, self.box)


def make_base(params: GenerationParams, inputs: Mapping[str, Pixels], pixels_per_latent: int) -> Base | None:
    """Bring image and mask of a request to the size that is drawn; None where there is no image.

    Args:
        params: what to draw.
        inputs: pictures by the names that the request gives them.
        pixels_per_latent: of the model.

    Raises:
        InvalidParamsError: a picture is missing or of another size than it was said, or nothing is marked.
    """
    if params.image is None:
        return None
    image = picture_of("image", params.image, inputs)
    if params.upscaler is not None:
        return Base(image)
    size = params.height, params.width
    if params.expand is not None:
        inner = (
            params.height - params.expand.top - params.expand.bottom,
            params.width - params.expand.left - params.expand.right,
        )
        canvas, mask, soft_mask = expanded(resize(image, *inner, params.resize), params.expand)
        return Base(canvas, latent_cells(mask, pixels_per_latent), canvas, soft_mask)
    if params.mask is None:
        return Base(resize(image, *size, params.resize))
    soft, hard = _read_mask(params.mask, inputs)
    if params.mask.area == "masked":
        box = crop_region(np.maximum(soft, hard), *size, params.mask.padding)
        pixels, cells = resize(box.of(image), *size, "fill"), resize_mask(box.of(hard), *size, "fill")
        soft_mask, old = soft, image
    else:
        box = None
        pixels, cells = resize(image, *size, params.resize), resize_mask(hard, *size, params.resize)
        soft_mask, old = resize_mask(soft, *size, params.resize), pixels
    if params.mask.content == "fill":
        pixels = filled(pixels, cells)
    return Base(pixels, latent_cells(cells, pixels_per_latent), old, soft_mask, box)


def picture_of(field: str, image: InputImage, inputs: Mapping[str, Pixels]) -> Pixels:
    """(H, W, 3): a picture that came with a request.

    Raises:
        InvalidParamsError: it did not, or has another size than it was said.
    """
    pixels = _found(field, image, inputs)
    return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels


def _found(field: str, image: InputImage, inputs: Mapping[str, Pixels]) -> Pixels:
    pixels = inputs.get(image.sha256)
    if pixels is None:
        raise InvalidParamsError(field, "must come with the request", image.sha256)
    if pixels.shape[:2] != (image.height, image.width):
        size = f"{pixels.shape[1]}x{pixels.shape[0]}"
        raise InvalidParamsError(field, f"must have the size that was said, {image.width}x{image.height}", size)
    return pixels


def _read_mask(wish: MaskWish, inputs: Mapping[str, Pixels]) -> tuple[Pixels, Pixels]:
    """How much of what is drawn shows, and what is drawn: both (H, W), in the image's own pixels.

    A line may be so thin that blurring leaves no pixel of it marked: it is drawn nevertheless.
    """
    mask = as_grey(_found("mask", wish.image, inputs))
    sharp = 255 - mask if wish.invert else mask
    if not (sharp >= MARKED).any():
        raise InvalidParamsError("mask", f"must mark something: grey {MARKED} to 255", int(sharp.max()))
    soft = blurred(sharp, wish.blur)
    return soft, np.where((sharp >= MARKED) | (soft >= MARKED), np.uint8(255), np.uint8(0))
