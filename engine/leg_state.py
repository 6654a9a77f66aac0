"""One leg of a picture while it is drawn: its tables, its noise, what it remembers."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from engine.journey import Journey
from engine.leg import Leg
from engine.models.base import EncodedImage, ModelInfo
from engine.noise import Noise
from engine.picture_params import MaskedContent
from engine.prompts.encoder import Conditioning
from engine.prompts.plan import PromptPlan
from engine.transfer import pinned, sent

__all__ = ["LastCall", "LegState", "make_leg_state"]


@dataclass(frozen=True, slots=True, eq=False)
class LastCall:
    """What the network was shown of a picture at its latest call, and what it answered."""

    shown: torch.Tensor
    """(C, h, w)."""
    answer: torch.Tensor
    """(C, h, w), after guidance."""
    timestep: float


@dataclass(slots=True, eq=False, kw_only=True)
class LegState:
    """A leg on its way. Owned by the engine's thread. Tensors are float32 and on the device, where nothing is said."""

    plan: Leg
    shape: tuple[int, int, int]
    """(C, h, w)."""
    prompts: PromptPlan
    num_chunks: int
    """Of its longest text: all of them are told as so many."""
    guidance: torch.Tensor
    """(m, 1, 1, 1), how much each of the prompts that `AND` joins counts, times the guidance scale."""
    num_calls: int
    timesteps: tuple[float, ...]
    """(n,), float32 numbers: what the network is told, and so is whoever looks at previews."""
    input_scales: torch.Tensor
    """(n, 1, 1, 1)."""
    matrices: torch.Tensor
    """(n, k, k + 2)."""
    known: torch.Tensor
    """(n, 2, 1, 1, 1): what the unmasked part becomes after each call, of the image's latents and the first noise."""
    draws: tuple[bool, ...]
    entry_blend: tuple[float, float]
    initial_noise_scale: float
    noise: Noise
    """On the host, pinned (150 draws of 2048x2048 are 150 MB) until the leg begins, then on the device."""
    cells: torch.Tensor | None = None
    """(h, w), bool: which latents are drawn; None: all."""
    content: MaskedContent = "original"
    """Of the cells, before they are noised."""
    reads_mask: bool = False
    """Whether the network is shown mask and masked picture (*inpainting models*). Nothing is then laid over the
    latents."""
    shown_mask: torch.Tensor | None = None
    """(C + 1, h, w), the mask and the latents of the masked picture; set before the first step where it is read."""
    image: torch.Tensor | None = None
    """(C, h, w), the latents of what is drawn over; kept where there are cells."""
    slots: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    """(k, C, h, w), the latents first; set when the leg begins."""
    conditionings: tuple[Conditioning, ...] = ()
    """What the network is told beside the latents, for each of `prompts.prompts`; set before the first step."""
    call_index: int = 0
    """Model calls already taken."""
    noise_index: int = 0
    """Draws of steps already used."""
    last_call: LastCall | None = None
    """None before the first."""

    @property
    def num_rows(self) -> int:
        """Model rows it takes in the next call."""
        return len(self.prompts.rows[min(self.call_index, self.num_calls - 1)])

    @property
    def told(self) -> list[Conditioning]:
        """What its rows are told in the next call."""
        return [self.conditionings[index] for index in self.prompts.rows[self.call_index]]

    @property
    def latents(self) -> torch.Tensor:
        """(C, h, w)."""
        return self.slots[0]

    @property
    def has_begun(self) -> bool:
        """Whether its first latents are there."""
        return self.slots.numel() > 0

    @property
    def is_ready(self) -> bool:
        """Whether it can take its next step: prompts and pictures have been read."""
        has_mask = self.shown_mask is not None or not self.reads_mask
        return bool(self.conditionings) and self.has_begun and has_mask

    @property
    def is_denoised(self) -> bool:
        """Whether it has taken its last step."""
        return self.call_index == self.num_calls

    def release(self) -> None:
        """Let go of what takes memory: it is over, and the next leg has begun."""
        nothing = self.slots.new_empty(0)
        self.slots, self.noise = nothing, Noise(None, None, nothing, nothing)
        self.image = self.shown_mask = None

    def send_noise(self) -> None:
        """Bring the noise to the device."""
        device, noise = self.matrices.device, self.noise
        entry = noise.entry if self.cells is None and self.has_begun else noise.entry.to(device, non_blocking=True)
        self.noise = Noise(noise.image, noise.masked, entry, noise.steps.to(device, non_blocking=True))

    def begin(self, image: torch.Tensor | None) -> None:
        """Make the first latents.

        Args:
            image: (C, h, w), latents of what is drawn over; None: noise alone, nothing is kept.
        """
        device = self.matrices.device
        entry = self.noise.entry.to(device, non_blocking=True)
        if image is None or self.plan.start == "noise":
            latents = entry * self.initial_noise_scale
        else:
            blend = self.entry_blend
            latents = blend[0] * self._with_content(image, entry) + blend[1] * entry
        if self.cells is not None:
            self.image = image
        slots = latents.new_zeros(self.matrices.shape[1], *self.shape)
        slots[0] = latents
        self.slots = slots

    def _with_content(self, image: torch.Tensor, entry: torch.Tensor) -> torch.Tensor:
        if self.cells is None or self.content in {"original", "fill"}:
            return image
        return torch.where(self.cells, entry if self.content == "noise" else torch.zeros_like(entry), image)

    def show_mask(self, encoded: EncodedImage) -> None:
        """Tell the network what is drawn.

        Args:
            encoded: the picture without its masked part.
        """
        mask = encoded.mean.new_ones(1, *self.shape[1:]) if self.cells is None else self.cells[None].float()
        self.shown_mask = torch.cat([mask, encoded.sampled(self.noise.masked)])

    def with_known(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents without noise, with those of the picture that is drawn over where nothing is masked.

        Args:
            latents: (C, h, w).
        """
        if self.cells is None or self.image is None or self.reads_mask:
            return latents
        return torch.where(self.cells, latents, self.image)

    def kept(self, latents: torch.Tensor) -> torch.Tensor:
        """What was drawn at the current call, and what is known where nothing is masked; as diffusers inpaints.

        Args:
            latents: (C, h, w), after the call's step.
        """
        if self.cells is None or self.image is None or self.reads_mask:
            return latents
        of_image, of_noise = self.known[self.call_index]
        return torch.where(self.cells, latents, of_image * self.image + of_noise * self.noise.entry)


def make_leg_state(
    plan: Leg,
    journey: Journey,
    noise: Noise,
    info: ModelInfo,
    *,
    num_chunks: int = 1,
    cells: torch.Tensor | None = None,
    content: MaskedContent = "original",
) -> LegState:
    """Make a leg ready for its prompt and its first latents; text to image has those at once."""
    device, prompts = info.device, plan.prompts
    weights = torch.tensor(prompts.weights).view(-1, 1, 1, 1)
    state = LegState(
        plan=plan,
        shape=info.latent_shape(plan.height, plan.width),
        prompts=prompts,
        num_chunks=num_chunks,
        guidance=sent(weights * plan.guidance_scale, device),
        num_calls=journey.num_calls,
        timesteps=tuple(journey.timesteps.tolist()),
        input_scales=sent(journey.input_scales.view(-1, 1, 1, 1), device),
        matrices=sent(journey.matrices, device),
        known=sent(journey.known.view(-1, 2, 1, 1, 1), device),
        draws=journey.draws,
        entry_blend=journey.entry_blend,
        initial_noise_scale=journey.initial_noise_scale,
        noise=Noise(
            None if noise.image is None else pinned(noise.image, device),
            None if noise.masked is None else pinned(noise.masked, device),
            pinned(noise.entry, device),
            pinned(noise.steps, device),
        ),
        cells=None if cells is None else sent(cells, device),
        content=content,
        reads_mask=info.is_inpainting,
    )
    if plan.start == "noise" and cells is None:
        state.begin(None)
    return state
