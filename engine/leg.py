"""A leg: one journey from noise towards a picture, over latents of one size. No torch.

Text to image, image to image and inpainting have one leg, hires fix has two, and a picture that is only enlarged none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engine.picture_params import SizeIds
from engine.samplers import Sampler

__all__ = ["Leg", "Start"]

Start = Literal["noise", "image", "leg"]
"""What a leg's first latents are made of: noise alone, or noise and the picture that came in or that the leg before
left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """What one leg draws."""

    start: Start
    height: int
    """Pixels."""
    width: int
    prompt: str
    negative_prompt: str | None
    """None: unguided, one model row."""
    guidance_scale: float
    sampler: Sampler
    noise_schedule: str
    """A key of `engine.samplers.NOISE_SCHEDULES`."""
    eta: float | None
    schedule_steps: int
    """Steps of the noise schedule."""
    taken_steps: int
    """How many of them are taken, at least one: the last ones."""
    size_ids: SizeIds | None = None
    """What a network that reads sizes (*SDXL*) is told of the picture; None: its own size, whole."""

    @property
    def told_sizes(self) -> tuple[int, ...]:
        """Original height and width, top and left of the crop, target height and width, in pixels."""
        return (self.height, self.width, 0, 0, self.height, self.width) if self.size_ids is None else self.size_ids

    @property
    def begin(self) -> int:
        """The first step that is taken."""
        return self.schedule_steps - self.taken_steps

    @property
    def num_rows(self) -> int:
        """Model rows that it takes in every call."""
        return 1 if self.negative_prompt is None else 2

    @property
    def model_calls(self) -> int:
        """How often the model is called for one picture."""
        return self.sampler.model_calls(self.taken_steps)
