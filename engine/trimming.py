"""The space that a sampler's step is linear in, and tables without the slots that nothing reads."""

from __future__ import annotations

from typing import Final

import torch

__all__ = ["NOISE_AXIS", "NUM_AXES", "OUTPUT_AXIS", "trim"]

NUM_AXES: Final = 16
"""Slots, the latents first; then the two below."""
OUTPUT_AXIS: Final = NUM_AXES - 2
NOISE_AXIS: Final = NUM_AXES - 1


def trim(matrices: list[torch.Tensor]) -> torch.Tensor:
    """Walk backwards, keep only the slots that something later still reads, and stack with zero padding."""
    wanted = [0]
    trimmed: list[torch.Tensor] = []
    for matrix in reversed(matrices):
        rows = matrix[wanted]
        used = [0, *(slot for slot in range(1, OUTPUT_AXIS) if rows[:, slot].any())]
        trimmed.append(rows[:, [*used, OUTPUT_AXIS, NOISE_AXIS]])
        wanted = used
    if wanted != [0]:
        raise AssertionError("the scheduler has state from before its first step")
    trimmed.reverse()
    num_slots = max(matrix.shape[1] for matrix in trimmed) - 2
    table = torch.zeros(len(trimmed), num_slots, num_slots + 2, dtype=torch.float64)
    for padded, matrix in zip(table, trimmed, strict=True):
        padded[: matrix.shape[0], : matrix.shape[1] - 2] = matrix[:, :-2]
        padded[: matrix.shape[0], num_slots:] = matrix[:, -2:]
    return table
