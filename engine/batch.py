"""Many pictures, one model call: gather their states into rows, scatter the rows' results back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.nn.functional import pad

from engine.journey import advance
from engine.state import DenoisingState

__all__ = ["Batch", "ModelInput"]


class ModelInput(NamedTuple):
    """What one model call is given; see `DiffusionModel.denoise`."""

    latents: torch.Tensor
    """(R, C, H/8, W/8), float32."""
    timesteps: torch.Tensor
    """(R,), float32."""
    prompt_embeds: torch.Tensor
    """(R, L, D)."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The states of one latent size that take the next step together.

    Rows are laid out in four blocks, so that guidance needs slices only, no index tensors: the guided states' negative
    prompts, their prompts, the unguided states' prompts, and padding.
    """

    guided: Sequence[DenoisingState]
    unguided: Sequence[DenoisingState]
    num_rows: int
    """Rows of the model call, padding included."""

    @classmethod
    def of(cls, states: Sequence[DenoisingState], num_rows: int) -> Batch:
        """Lay out the states in at least `num_rows` rows."""
        used = sum(state.num_rows for state in states)
        return cls(
            guided=[state for state in states if state.num_rows == 2],
            unguided=[state for state in states if state.num_rows == 1],
            num_rows=max(num_rows, used),
        )

    @property
    def states(self) -> list[DenoisingState]:
        """All of them, in the order of their results."""
        return [*self.guided, *self.unguided]

    def gather(self) -> ModelInput:
        """Build the model's input. Padding rows are zeros: whatever they give is thrown away."""
        latents = [state.latents for state in self.states]
        scales = [state.input_scales[state.call_index] for state in self.states]
        timesteps = [state.timesteps[state.call_index] for state in self.states]
        num_guided = len(self.guided)
        embeds = [state.negative_prompt_embeds for state in self.guided]
        embeds += [state.prompt_embeds for state in self.states]
        return ModelInput(
            self._padded(torch.stack(latents[:num_guided] + latents) * torch.stack(scales[:num_guided] + scales)),
            self._padded(torch.stack(timesteps[:num_guided] + timesteps)),
            self._padded(torch.stack([row for row in embeds if row is not None])),
        )

    def _padded(self, rows: torch.Tensor) -> torch.Tensor:
        missing = self.num_rows - rows.shape[0]
        return torch.cat([rows, rows.new_zeros(missing, *rows.shape[1:])]) if missing else rows

    def guide(self, prediction: torch.Tensor) -> torch.Tensor:
        """Classifier-free guidance, each state with its own scale.

        Args:
            prediction: (R, C, H/8, W/8), the model's answer, row by row.

        Returns:
            (B, C, H/8, W/8), one prediction a state.
        """
        num_guided, num_unguided = len(self.guided), len(self.unguided)
        alone = prediction[2 * num_guided : 2 * num_guided + num_unguided]
        if not num_guided:
            return alone
        negative, positive = prediction[:num_guided], prediction[num_guided : 2 * num_guided]
        scales = torch.stack([state.guidance_scale for state in self.guided])
        guided = negative + scales * (positive - negative)
        return torch.cat([guided, alone]) if num_unguided else guided

    def scatter(self, prediction: torch.Tensor) -> None:
        """Take every state's step with the model's answer: guidance, one fused update, and each gets its slots back.

        Args:
            prediction: (R, C, H/8, W/8), the model's answer, row by row.
        """
        states = self.states
        num_slots = max(state.slots.shape[0] for state in states)
        matrices = torch.stack([_widen(state.matrices[state.call_index], num_slots) for state in states])
        slots = torch.stack([_more_slots(state.slots, num_slots) for state in states])
        new_slots = advance(slots, self.guide(prediction), self._noise(), matrices)
        for state, new in zip(states, new_slots, strict=True):
            state.slots = new[: state.slots.shape[0]]
            state.noise_index += state.draws[state.call_index]
            state.call_index += 1

    def _noise(self) -> torch.Tensor | None:
        """(B, C, H/8, W/8): fresh noise for the states that draw at this call; None if none does."""
        states = self.states
        if not any(state.draws[state.call_index] for state in states):
            return None
        zeros = torch.zeros_like(states[0].latents)
        return torch.stack(
            [state.noise[state.noise_index] if state.draws[state.call_index] else zeros for state in states]
        )


def _more_slots(slots: torch.Tensor, num_slots: int) -> torch.Tensor:
    """(k, ...) -> (num_slots, ...): slots that stay zero, so that samplers of different memory share an update."""
    missing = num_slots - slots.shape[0]
    return torch.cat([slots, slots.new_zeros(missing, *slots.shape[1:])]) if missing else slots


def _widen(matrix: torch.Tensor, num_slots: int) -> torch.Tensor:
    """(k, k + 2) -> (num_slots, num_slots + 2): the same update, and nothing for the added slots."""
    missing = num_slots - matrix.shape[0]
    if not missing:
        return matrix
    slots, rest = matrix[:, :-2], matrix[:, -2:]
    return pad(torch.cat([pad(slots, (0, missing)), rest], dim=1), (0, 0, 0, missing))
