"""Many pictures, one model call: gather their latents into rows, scatter the rows' results back."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.nn.functional import pad

from engine.journey import advance
from engine.leg_state import LastCall, LegState
from engine.picture import Picture

__all__ = ["Batch", "ModelInput"]


class ModelInput(NamedTuple):
    """What one model call is given; see `DiffusionModel.denoise`."""

    latents: torch.Tensor
    """(R, C, h, w), float32; (R, 2 C + 1, h, w) for inpainting models."""
    time: torch.Tensor
    """(R, T)."""
    prompt: torch.Tensor
    """(R, L, K)."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The pictures of one batch key that take the next step together.

    A picture's rows stand together (its *span*): its negative prompt if it is guided, then its prompt, or each of those
    that `AND` joins. How many rows it has, may change from call to call. Padding is last.
    """

    pictures: Sequence[Picture]
    num_rows: int
    """Rows of the model call, padding included."""

    @classmethod
    def of(cls, pictures: Sequence[Picture], num_rows: int) -> Batch:
        """Lay out the pictures in at least `num_rows` rows."""
        return cls(pictures, max(num_rows, sum(picture.num_rows for picture in pictures)))

    @property
    def states(self) -> list[LegState]:
        """What is drawn of each picture."""
        return [picture.leg for picture in self.pictures]

    @property
    def rows_by_request(self) -> dict[str, int]:
        """Request -> rows of all its pictures in this call, without padding."""
        rows: dict[str, int] = {}
        for picture in self.pictures:
            rows[picture.request_id] = rows.get(picture.request_id, 0) + picture.num_rows
        return rows

    @property
    def last_rows(self) -> list[int]:
        """The last row of each picture's span: that of its prompt, or of the last one that is joined."""
        return [end - 1 for end in itertools.accumulate(state.num_rows for state in self.states)]

    def gather(self) -> ModelInput:
        """Build the model's input. Padding rows are zeros: whatever they give is thrown away."""
        told = [(state, conditioning) for state in self.states for conditioning in state.told]
        latents = torch.stack([state.latents for state, _ in told])
        scales = torch.stack([state.input_scales[state.call_index] for state, _ in told])
        shown = latents * scales
        masks = [state.shown_mask for state, _ in told if state.shown_mask is not None]
        if masks:  # of all or of none, as the model has it; no sampler scales them
            shown = torch.cat([shown, torch.stack(masks)], dim=1)
        times = [conditioning.time[state.call_index] for state, conditioning in told]
        prompts = [conditioning.prompt for _, conditioning in told]
        return ModelInput(self._padded(shown), self._padded(torch.stack(times)), self._padded(torch.stack(prompts)))

    def _padded(self, rows: torch.Tensor) -> torch.Tensor:
        missing = self.num_rows - rows.shape[0]
        return torch.cat([rows, rows.new_zeros(missing, *rows.shape[1:])]) if missing else rows

    def guide(self, prediction: torch.Tensor) -> torch.Tensor:
        """Classifier-free guidance, each picture with its own scale.

        Args:
            prediction: (R, C, h, w), the model's answer, row by row.

        Returns:
            (B, C, h, w), one prediction a picture.
        """
        answers = [prediction[row] for row in self.last_rows]
        guided = [index for index, state in enumerate(self.states) if state.num_rows == 2]
        if guided:
            # One kernel for all of them, not one each.
            negative = torch.stack([prediction[self.last_rows[index] - 1] for index in guided])
            scales = torch.stack([self.states[index].guidance[0] for index in guided])
            positive = torch.stack([answers[index] for index in guided])
            mixed = negative + scales * (positive - negative)
            for index, answer in zip(guided, mixed, strict=True):
                answers[index] = self._rescaled(index, answer, answers[index])
        for index, state in enumerate(self.states):
            if state.num_rows > 2:
                end = self.last_rows[index] + 1
                negative, *positives = prediction[end - state.num_rows : end]
                sums = _joined(negative, positives, state.guidance)
                answers[index] = self._rescaled(index, sums, _joined(negative, positives, state.prompts.weights))
        return torch.stack(answers)

    def _rescaled(self, index: int, guided: torch.Tensor, unguided: torch.Tensor) -> torch.Tensor:
        """(C, h, w): a guided prediction, as much as is asked for with the contrast of the unguided one.

        Section 3.4 of https://arxiv.org/abs/2305.08891, in diffusers' arithmetic.
        """
        share = self.states[index].plan.guidance_rescale
        if not share:
            return guided
        return share * (guided * (unguided.std() / guided.std())) + (1 - share) * guided

    def scatter(self, prediction: torch.Tensor, shown: torch.Tensor | None = None) -> None:
        """Take every picture's step with the model's answer: guidance, one fused update, and each gets its slots back.

        Args:
            prediction: (R, C, h, w), the model's answer, row by row.
            shown: (R, C or more, h, w), what the model was shown; remembered with the answer where it is given.
        """
        states, answers = self.states, self.guide(prediction)
        if shown is not None:
            for state, row, answer in zip(states, self.last_rows, answers, strict=True):
                timestep = state.timesteps[state.call_index]
                state.last_call = LastCall(shown[row, : answer.shape[0]], answer, timestep)
        num_slots = max(state.slots.shape[0] for state in states)
        matrices = torch.stack([_widen(state.matrices[state.call_index], num_slots) for state in states])
        slots = torch.stack([_more_slots(state.slots, num_slots) for state in states])
        new_slots = advance(slots, answers, self._noise(), matrices)
        for state, new in zip(states, new_slots, strict=True):
            if state.cells is not None:
                new[0] = state.kept(new[0])
        for state, new in zip(states, new_slots, strict=True):
            state.slots = new[: state.slots.shape[0]]
            state.noise_index += state.draws[state.call_index]
            state.call_index += 1

    def _noise(self) -> torch.Tensor | None:
        """(B, C, h, w): fresh noise for the states that draw at this call; None if none does."""
        states = self.states
        if not any(state.draws[state.call_index] for state in states):
            return None
        zeros = torch.zeros_like(states[0].latents)
        return torch.stack(
            [state.noise.steps[state.noise_index] if state.draws[state.call_index] else zeros for state in states]
        )


def _joined(
    negative: torch.Tensor, positives: Sequence[torch.Tensor], weights: Iterable[torch.Tensor | float]
) -> torch.Tensor:
    """(C, h, w): several predictions that count differently; "Composable Diffusion", https://arxiv.org/abs/2206.01714."""
    total = negative
    for positive, weight in zip(positives, weights, strict=True):
        total = total + weight * (positive - negative)
    return total


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
