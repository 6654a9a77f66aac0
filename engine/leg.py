"""A leg: one journey from noise towards a picture, over latents of one size. No torch.

Text to image, image to image and inpainting have one leg, hires fix has two, and a picture that is only enlarged none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engine.picture_params import SizeIds
from engine.prompts.plan import PLAIN, PromptPlan, Reading, ScheduledPart, plan_prompts, read_prompt
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
    """None: unguided."""
    reading: Reading = PLAIN
    guidance_rescale: float = 0.0
    """How far the contrast that guidance adds is taken back, 0 to 1."""
    num_steps_before: int | None = None
    """Of the first leg, as its prompt counts them; None: this is the first."""
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
    def num_steps(self) -> int:
        """Steps as a prompt counts them: twice as many where the model is called twice a step (A1111)."""
        return self.taken_steps * {"2n - 1": 2, "3n - 3": 3}.get(self.sampler.calls, 1)

    def read(self, text: str, *, is_negative: bool) -> tuple[ScheduledPart, ...]:
        """What one of its prompts says.

        Raises:
            PromptError: it breaks a rule of the language.
        """
        return read_prompt(text, self.reading.syntax, self.num_steps, self.num_steps_before, is_negative=is_negative)

    @property
    def prompts(self) -> PromptPlan:
        """What is told at each call."""
        return plan_prompts(
            self.prompt,
            self.negative_prompt,
            self.reading,
            num_calls=self.model_calls,
            num_steps=self.num_steps,
            num_steps_before=self.num_steps_before,
        )

    @property
    def num_rows(self) -> int:
        """Model rows that it takes in a call, at most."""
        return max(len(row) for row in self.prompts.rows)

    @property
    def model_rows(self) -> int:
        """Model rows of all its calls."""
        return sum(len(row) for row in self.prompts.rows)

    @property
    def model_calls(self) -> int:
        """How often the model is called for one picture."""
        return self.sampler.model_calls(self.taken_steps)
