"""The table of a sampler that diffusers lacks: our own numbers (`slopes.py`) along diffusers' noise levels."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import torch

from engine.journey import Journey, Route
from engine.schedulers import Scheduler
from engine.slopes import MAX_SLOPES, PLANS, Call
from engine.trimming import NOISE_AXIS, NUM_AXES, OUTPUT_AXIS, trim

__all__ = ["slope_table"]

_START: Final = 1
"""The slot that holds the point where the current step began."""
_SLOPES: Final = 2
"""The first of the slots that hold slopes, the newest first."""


def slope_table(scheduler: Scheduler, timesteps: torch.Tensor, route: Route) -> Journey:
    """Make the table.

    Args:
        scheduler: diffusers' Euler, which has the noise levels, as `set_timesteps` left it.
        timesteps: what that returned.
        route: where the journey goes.

    Returns:
        The journey, in float64.
    """
    levels = [float(sigma) for sigma in scheduler.sigmas]
    share = float(scheduler.alphas_cumprod[0])
    calls = list(PLANS[route.sampler.name](levels, math.sqrt((1 - share) / share)))
    told = [_timestep(scheduler, call.sigma, timesteps.tolist()) for call in calls]
    sigmas = torch.tensor([call.sigma for call in calls], dtype=torch.float64)
    after = torch.cat([sigmas[1:], sigmas.new_zeros(1)])
    return Journey(
        timesteps=torch.tensor(told, dtype=torch.float64),
        input_scales=1 / (sigmas**2 + 1).sqrt(),
        matrices=trim(_matrices(calls, str(scheduler.config.prediction_type))),
        known=torch.stack([torch.ones_like(after), after], dim=1),
        draws=tuple(call.noise > 0 for call in calls),
        initial_noise_scale=float(scheduler.init_noise_sigma),
        entry_blend=(1.0, levels[0]),
    )


def _timestep(scheduler: Scheduler, sigma: float, timesteps: list[float]) -> float:
    """What the network is told at a level: as diffusers' Euler, which interpolates between those of the training."""
    for level, timestep in zip(scheduler.sigmas.tolist(), timesteps, strict=False):
        if math.isclose(level, sigma, rel_tol=1e-9):
            return timestep
    shares = scheduler.alphas_cumprod.double().numpy()
    return float(np.interp(math.log(sigma), np.log((1 - shares) / shares) / 2, np.arange(len(shares))))


def _matrices(calls: list[Call], prediction_type: str) -> list[torch.Tensor]:
    """(NUM_AXES - 2, NUM_AXES) for each call, slots that nothing reads included."""
    axes = torch.eye(NUM_AXES, dtype=torch.float64)
    is_first = True
    matrices = []
    for call in calls:
        start = axes[0] if is_first else axes[_START]
        slopes = [_slope(axes, call.sigma, prediction_type), *axes[_SLOPES : _SLOPES + MAX_SLOPES - 1]]
        rows = torch.zeros(OUTPUT_AXIS, NUM_AXES, dtype=torch.float64)
        rows[0] = start + call.noise * axes[NOISE_AXIS]
        for weight, slope in zip(reversed(call.weights), slopes, strict=False):
            rows[0] += weight * slope
        rows[_START] = start
        rows[_SLOPES : _SLOPES + MAX_SLOPES] = torch.stack(slopes)
        matrices.append(rows)
        is_first = call.ends_step
    return matrices


def _slope(axes: torch.Tensor, sigma: float, prediction_type: str) -> torch.Tensor:
    """How the latents change with sigma: the noise in them."""
    if prediction_type == "epsilon":
        return axes[OUTPUT_AXIS]
    return sigma / (sigma**2 + 1) * axes[0] + 1 / math.sqrt(sigma**2 + 1) * axes[OUTPUT_AXIS]
