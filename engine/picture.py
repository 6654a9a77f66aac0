"""A picture on its way from noise to pixels: its legs, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch

from engine.batch_scheduler import BatchKey
from engine.errors import InvalidParamsError
from engine.journey import Journey
from engine.leg import Leg
from engine.leg_state import LegState, make_leg_state
from engine.models.base import DiffusionModel, EncodedImage, ModelInfo
from engine.noise import Noise, draw_noise, turned
from engine.params import GenerationParams
from engine.pictures.base import Base
from engine.pictures.mask import Box
from engine.pictures.resize import Pixels
from engine.prompt_limits import legs_to_read, num_chunks

__all__ = ["Picture", "Source", "make_picture"]


@dataclass(slots=True, eq=False)
class Source:
    """What the pictures of a request are drawn over: read once, sampled for each."""

    base: Base
    encoded: EncodedImage | None = None
    masked: EncodedImage | None = None
    """The picture without its masked part; for inpainting models."""


@dataclass(slots=True, eq=False, kw_only=True)
class Picture:
    """One picture being drawn. Owned by the engine's thread."""

    request_id: str
    image_index: int
    seed: int
    params: GenerationParams
    """Of the whole request."""
    legs: tuple[LegState, ...]
    """Empty: it is only enlarged."""
    source: Source | None
    """What it is drawn over; shared by the pictures of a request."""
    leg_index: int = 0
    steps_taken: int = 0
    """Of `GenerationParams.progress_steps`."""
    enlarged: Pixels | None = None
    """The result of enlarging without drawing, as far as it is done."""
    tiles: list[Box] = field(default_factory=list)
    """Of it, those that are still to be made."""
    is_cut_short: bool = False
    """Whether it takes no more steps, and is handed over as far as it is."""

    @property
    def leg(self) -> LegState:
        """The one that is drawn now."""
        return self.legs[self.leg_index]

    @property
    def shown_leg(self) -> LegState | None:
        """The latest one that the network has answered for; None: there is nothing to see yet."""
        return next((leg for leg in reversed(self.legs) if leg.last_call is not None), None)

    @property
    def is_last_leg(self) -> bool:
        """Whether its latents become the answer."""
        return self.leg_index == len(self.legs) - 1

    @property
    def height(self) -> int:
        """Pixels, of what is done now."""
        return self.leg.plan.height if self.legs else self.params.height

    @property
    def width(self) -> int:
        """Pixels."""
        return self.leg.plan.width if self.legs else self.params.width

    @property
    def batch_key(self) -> BatchKey:
        """What it must share with the others in a model call."""
        return BatchKey(*self.leg.shape[1:], self.leg.num_chunks) if self.legs else BatchKey(0, 0)

    @property
    def num_rows(self) -> int:
        """Model rows it takes in the next call."""
        return self.leg.num_rows if self.legs else 1

    @property
    def is_ready(self) -> bool:
        """Whether it can take its next step: prompts and pictures have been read."""
        return bool(self.legs) and self.leg.is_ready

    @property
    def is_denoised(self) -> bool:
        """Whether it takes no more steps."""
        return self.is_cut_short or (bool(self.legs) and self.is_last_leg and self.leg.is_denoised)

    def go_on(self) -> None:
        """Turn to the next leg, if this one has taken its last step and there is one."""
        if self.leg.is_denoised and not self.is_last_leg:
            self.leg_index += 1


def make_picture(
    request_id: str,
    params: GenerationParams,
    image_index: int,
    journey_of: Callable[[Leg], Journey],
    source: Source | None,
    model: DiffusionModel,
) -> Picture:
    """Make one picture of a request ready for its prompts and pictures with a model: tables and noise.

    Raises:
        InvalidParamsError: this model has no table for a leg, or cannot read its prompts.
    """
    info = model.info
    alone = params.of_image(image_index)
    cells = None if source is None or source.base.cells is None else torch.from_numpy(source.base.cells)
    legs: list[LegState] = []
    for plan in legs_to_read(alone, embeds_guidance=info.embeds_guidance):
        journey = journey_of(plan)
        if cells is not None and not info.is_inpainting and not journey.known.isfinite().all():
            raise InvalidParamsError(
                "sampler", "must have finite noise levels between its steps with a mask", plan.sampler.name
            )
        is_second = plan.start == "leg"
        noise = _noise(alone, plan, journey, info, has_mask=cells is not None and not is_second)
        content = "original" if params.mask is None else params.mask.content
        legs.append(
            make_leg_state(
                plan,
                journey,
                noise,
                info,
                num_chunks=num_chunks(plan, model.count_chunks),
                cells=None if is_second else cells,
                content=content,
            )
        )
    return Picture(
        request_id=request_id,
        image_index=image_index,
        seed=alone.seed,
        params=params,
        legs=tuple(legs),
        source=source,
    )


def _noise(params: GenerationParams, plan: Leg, journey: Journey, info: ModelInfo, *, has_mask: bool) -> Noise:
    """A leg's draws: from a fresh generator, also in a second leg. A variation turns the first of them."""
    is_encoded = params.image is not None if plan.start != "leg" else params.enlarges_pixels
    if info.is_inpainting:
        # Without a mask all is masked. diffusers then reads the image only where the first latents are made of it.
        is_encoded, has_mask = is_encoded and plan.start != "noise", True
    has_image, has_mask = is_encoded and info.encoder_has_variance, has_mask and info.encoder_has_variance
    shape, num_steps = info.latent_shape(plan.height, plan.width), sum(journey.draws)
    noise = draw_noise(params.seed, shape, num_steps, has_image=has_image, has_mask=has_mask)
    if params.variation_seed is None or not params.variation_strength:
        return noise
    other = draw_noise(params.variation_seed, shape, 0, has_image=has_image, has_mask=has_mask)
    return replace(noise, entry=turned(params.variation_strength, noise.entry, other.entry))
