"""Probing: reads a sampler's table from diffusers' own scheduler.

A scheduler's step is linear in what it is given: the latents, what it remembers from earlier steps, the network's
output, fresh noise. Handing it unit vectors instead of pictures therefore reveals its coefficients, to the last bit of
the library's own arithmetic. Beside the unit vectors every step is handed large random numbers: what is not linear
(clipping, thresholding), not finite, or remembered out of our sight does not treat them as the table would, and is
refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import torch

from engine.errors import InvalidParamsError
from engine.journey import Journey, Route
from engine.schedulers import Scheduler, noise_from
from engine.slope_table import slope_table
from engine.trimming import NOISE_AXIS, NUM_AXES, OUTPUT_AXIS, trim

__all__ = ["probe"]

# While probing, an "image" is a float64 tensor with one channel per axis of the space that the step is linear in, and
# some channels of random numbers.
NUM_WITNESSES: Final = 16
PROBE_SHAPE: Final = (1, NUM_AXES + NUM_WITNESSES, 1, 1)

WITNESS_SCALE: Final = 8.0
"""Standard deviation of the random numbers: anything that clips at 1 or thresholds shows itself."""

# Linear steps agree to 2e-7 (diffusers casts to float32 inside some of them), those that clip miss by a tenth and more.
MAX_NONLINEARITY: Final = 1e-5


def probe(scheduler: Scheduler, timesteps: torch.Tensor, route: Route) -> Journey:
    """Read a scheduler's table off itself, or make that of a sampler that diffusers lacks. Consumes the scheduler.

    Args:
        scheduler: as `set_timesteps` left it.
        timesteps: what that returned.
        route: where the journey goes.

    Returns:
        The journey, in float64.

    Raises:
        InvalidParamsError: a step is not linear, or a coefficient is not finite (diffusers divides by zero in some
            configurations).
    """
    if route.sampler.is_own:
        return slope_table(scheduler, timesteps, route)
    generator = torch.Generator().manual_seed(0)
    drawn: list[torch.Tensor] = []
    scales: list[float] = []
    draws: list[bool] = []
    matrices: list[torch.Tensor] = []
    known: list[list[float]] = []
    nonlinearity = 0.0
    inputs = _probe_inputs(generator)
    blend = scheduler.add_noise(inputs[0], inputs[1], timesteps[:1]).flatten()[:2].tolist()

    def draw() -> torch.Tensor:
        return inputs[NOISE_AXIS].clone()

    with noise_from(scheduler, draw, drawn):
        for index, timestep in enumerate(timesteps):
            inputs = _probe_inputs(generator)
            for slot, (holder, key) in enumerate(_remembered(scheduler, PROBE_SHAPE), start=1):
                holder[key] = inputs[slot].clone()
            drawn.clear()
            scales.append(float(scheduler.scale_model_input(inputs[0].clone(), timestep).flatten()[0]))
            stepped = scheduler.step(inputs[OUTPUT_AXIS].clone(), timestep, inputs[0].clone(), **route.step_options)
            after = [stepped.prev_sample, *(holder[key] for holder, key in _remembered(scheduler, PROBE_SHAPE))]
            if len(drawn) > 1 or len(after) > OUTPUT_AXIS:
                raise AssertionError(f"{type(scheduler).__name__} draws or remembers more than a table has room for")
            draws.append(bool(drawn))
            rows = torch.stack([tensor.double().flatten() for tensor in after])
            matrix = rows[:, :NUM_AXES]
            expected = matrix @ inputs.flatten(1)[:, NUM_AXES:]
            error = float((rows[:, NUM_AXES:] - expected).abs().max() / expected.abs().max())
            nonlinearity = max(nonlinearity, error) if math.isfinite(error) else error
            matrices.append(matrix)
            # Asked for, not derived: once a scheduler has stepped, its `add_noise` looks at the step it is at.
            is_last = index + 1 == len(timesteps)
            after_it = timesteps[index + 1 : index + 2]
            noised = inputs[0] if is_last else scheduler.add_noise(inputs[0].clone(), inputs[1].clone(), after_it)
            known.append([float(share) for share in noised.flatten()[:2]])
    table = trim(matrices)
    if not table.isfinite().all():
        raise InvalidParamsError(
            "noise_schedule",
            f"must give the sampler {route.sampler.name} finite coefficients over {route.num_inference_steps} steps "
            "(diffusers divides by zero)",
            route.noise_schedule,
        )
    if not nonlinearity <= MAX_NONLINEARITY:
        raise InvalidParamsError(
            "sampler",
            f"must be linear as this model configures it (off by {nonlinearity:.1g} of the result)",
            route.sampler.name,
        )
    return Journey(
        timesteps=timesteps.double(),
        input_scales=torch.tensor(scales, dtype=torch.float64),
        matrices=table,
        known=torch.tensor(known, dtype=torch.float64),
        draws=tuple(draws),
        initial_noise_scale=float(scheduler.init_noise_sigma),
        entry_blend=(blend[0], blend[1]),
    )


def _probe_inputs(generator: torch.Generator) -> torch.Tensor:
    """(NUM_AXES, *PROBE_SHAPE): for each axis its unit vector, and fresh random numbers beside it."""
    units = torch.eye(NUM_AXES, dtype=torch.float64)
    witnesses = WITNESS_SCALE * torch.randn(NUM_AXES, NUM_WITNESSES, generator=generator, dtype=torch.float64)
    return torch.cat([units, witnesses], dim=1).view(NUM_AXES, *PROBE_SHAPE)


def _remembered(scheduler: object, shape: Sequence[int]) -> Iterator[tuple[Any, Any]]:
    """Where a scheduler keeps image-shaped tensors: (container, key) pairs in a stable order."""
    attributes = vars(scheduler)
    for name, value in attributes.items():
        if isinstance(value, list):
            yield from ((value, i) for i, item in enumerate(value) if _has_shape(item, shape))
        elif _has_shape(value, shape):
            yield attributes, name


def _has_shape(value: object, shape: Sequence[int]) -> bool:
    return isinstance(value, torch.Tensor) and tuple(value.shape) == tuple(shape)
