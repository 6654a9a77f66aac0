"""A sampler as a table: one small matrix for every model call of a request, read off diffusers' own scheduler.

A scheduler's step is linear in what it is given: the latents, what it remembers from earlier steps, the network's
output, fresh noise. Handing it unit vectors instead of pictures (*probing*) therefore reveals its coefficients, to the
last bit of the library's own arithmetic. Beside the unit vectors every step is handed large random numbers: what is not
linear (clipping, thresholding), not finite, or remembered out of our sight does not treat them as the table would, and
is refused. While drawing, no scheduler exists.
"""

from __future__ import annotations

import copy
import math
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch

from engine.errors import InvalidParamsError
from engine.samplers import Sampler
from engine.schedulers import Scheduler, make_scheduler, noise_from, set_timesteps

__all__ = ["Journey", "JourneyCache", "Route", "advance", "probe"]

# While probing, an "image" is a float64 tensor with one channel per axis of the space that the step is linear in, and
# some channels of random numbers.
NUM_AXES: Final = 16
OUTPUT_AXIS: Final = NUM_AXES - 2
NOISE_AXIS: Final = NUM_AXES - 1
NUM_WITNESSES: Final = 16
PROBE_SHAPE: Final = (1, NUM_AXES + NUM_WITNESSES, 1, 1)

WITNESS_SCALE: Final = 8.0
"""Standard deviation of the random numbers: anything that clips at 1 or thresholds shows itself."""

# Linear steps agree to 2e-7 (diffusers casts to float32 inside some of them), those that clip miss by a tenth and more.
MAX_NONLINEARITY: Final = 1e-5


@dataclass(frozen=True, slots=True, eq=False)
class Journey:
    """One request's way from noise to picture: n model calls, k remembered tensors ("slots"), the latents first.

    Call i: the network sees `input_scales[i] * latents` at `timesteps[i]`; then the slots become
    `matrices[i] @ [slots, network output, noise]`.
    """

    timesteps: torch.Tensor
    """(n,): what the network is told. Fractional for some samplers."""
    input_scales: torch.Tensor
    """(n,)."""
    matrices: torch.Tensor
    """(n, k, k + 2): columns are the k slots, the network's output, fresh noise."""
    draws: tuple[bool, ...]
    """(n,): whether diffusers draws fresh noise at that call, even if its coefficient is 0."""
    initial_noise_scale: float
    """Text to image starts from this times standard normal noise."""
    entry_blend: tuple[float, float]
    """Image to image starts from `entry_blend[0]` times the image's latents plus `entry_blend[1]` times noise."""

    @property
    def num_calls(self) -> int:
        """Model calls, n."""
        return len(self.draws)

    @property
    def num_slots(self) -> int:
        """Remembered tensors, k."""
        return self.matrices.shape[1]

    def to(self, dtype: torch.dtype) -> Journey:
        """The same journey in another precision."""
        return replace(
            self,
            timesteps=self.timesteps.to(dtype),
            input_scales=self.input_scales.to(dtype),
            matrices=self.matrices.to(dtype),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Which journey: everything that its table depends on, besides the checkpoint's scheduler configuration."""

    sampler: Sampler
    noise_schedule: str
    """A key of `NOISE_SCHEDULES`."""
    num_inference_steps: int
    begin: int = 0
    """The step at which the journey is entered: 0 from pure noise, more from a noisy image."""
    eta: float | None = None
    """Share of fresh noise, for the samplers that leave it to the caller."""

    @property
    def step_options(self) -> dict[str, object]:
        """What the scheduler's `step()` is given besides tensors."""
        return {**self.sampler.step_options, **({} if self.eta is None else {"eta": self.eta})}

    @property
    def key(self) -> tuple[object, ...]:
        """What tells it from other routes."""
        return self.sampler.name, self.noise_schedule, self.num_inference_steps, self.begin, self.eta


class JourneyCache:
    """The journeys of one model, each probed once. Safe to use from several threads."""

    def __init__(self, scheduler_config: Mapping[str, object], *, max_entries: int = 256) -> None:
        self._config = dict(scheduler_config)
        self._max_entries = max_entries
        self._journeys: OrderedDict[tuple[object, ...], Journey] = OrderedDict()
        # Building some schedulers lays out 1000 steps (up to 0.3 s): done once, copied for every table.
        self._prototypes: dict[tuple[str, str], Scheduler] = {}
        self._lock = threading.Lock()

    def get(self, route: Route) -> Journey:
        """The journey along a route.

        Raises:
            InvalidParamsError: with this model's configuration the sampler is no table, or not over so many steps.
        """
        key = route.key
        with self._lock:
            journey = self._journeys.get(key)
            if journey is None:
                journey = self._make(route)
                self._journeys[key] = journey
                if len(self._journeys) > self._max_entries:
                    self._journeys.popitem(last=False)
            self._journeys.move_to_end(key)
            return journey

    def _make(self, route: Route) -> Journey:
        sampler, noise_schedule = route.sampler, route.noise_schedule
        prototype = self._prototypes.get((sampler.name, noise_schedule))
        if prototype is None:
            prototype = make_scheduler(sampler, noise_schedule, self._config)
            self._prototypes[sampler.name, noise_schedule] = prototype
        scheduler = copy.deepcopy(prototype)
        timesteps = set_timesteps(scheduler, sampler, noise_schedule, route.num_inference_steps, route.begin)
        with torch.inference_mode():  # a fifth faster
            exact = probe(scheduler, timesteps, route)
        return exact.to(torch.float32)


def probe(scheduler: Scheduler, timesteps: torch.Tensor, route: Route) -> Journey:
    """Read a scheduler's table off itself. Consumes the scheduler.

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
    generator = torch.Generator().manual_seed(0)
    drawn: list[torch.Tensor] = []
    scales: list[float] = []
    draws: list[bool] = []
    matrices: list[torch.Tensor] = []
    nonlinearity = 0.0
    inputs = _probe_inputs(generator)
    blend = scheduler.add_noise(inputs[0], inputs[1], timesteps[:1]).flatten()[:2].tolist()

    def draw() -> torch.Tensor:
        return inputs[NOISE_AXIS].clone()

    with noise_from(scheduler, draw, drawn):
        for timestep in timesteps:
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
    table = _trim(matrices)
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
        draws=tuple(draws),
        initial_noise_scale=float(scheduler.init_noise_sigma),
        entry_blend=(blend[0], blend[1]),
    )


def _probe_inputs(generator: torch.Generator) -> torch.Tensor:
    """(NUM_AXES, *PROBE_SHAPE): for each axis its unit vector, and fresh random numbers beside it."""
    units = torch.eye(NUM_AXES, dtype=torch.float64)
    witnesses = WITNESS_SCALE * torch.randn(NUM_AXES, NUM_WITNESSES, generator=generator, dtype=torch.float64)
    return torch.cat([units, witnesses], dim=1).view(NUM_AXES, *PROBE_SHAPE)


def advance(
    slots: torch.Tensor, output: torch.Tensor, noise: torch.Tensor | None, matrices: torch.Tensor
) -> torch.Tensor:
    """Take every picture's step at once.

    Args:
        slots: (B, K, C, h, w), what each picture remembers, its latents first.
        output: (B, C, h, w), the network's prediction after guidance.
        noise: (B, C, h, w), fresh standard normal; None where no picture of the batch draws any.
        matrices: (B, K, K + 2), each picture's own.

    Returns:
        The new slots, (B, K, C, h, w).
    """
    num_slots = slots.shape[1]
    coefficients = matrices[..., None, None, None]
    # Not a matmul: TF32 would cost 2e-3. Not addcmul: products and sums are rounded one by one in separate kernels, so
    # that no element's bits depend on whether the vectorized loop (with FMA) or its scalar tail computed it.
    new_slots = coefficients[:, :, num_slots] * output[:, None]
    for column in range(num_slots):
        new_slots += coefficients[:, :, column] * slots[:, None, column]
    if noise is not None:
        new_slots += coefficients[:, :, num_slots + 1] * noise[:, None]
    return new_slots


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


def _trim(matrices: list[torch.Tensor]) -> torch.Tensor:
    """Walk backwards, keep only the slots that something later still reads, and stack with zero padding."""
    wanted = [0]
    trimmed: list[torch.Tensor] = []
    for matrix in reversed(matrices):
        rows = matrix[wanted]
        used = [0, *(slot for slot in range(1, OUTPUT_AXIS) if rows[:, slot].any())]
        trimmed.append(rows[:, [*used, OUTPUT_AXIS, NOISE_AXIS]])
        wanted = used
    if wanted != [0]:
        raise AssertionError("the scheduler remembers something from before its first step")
    trimmed.reverse()
    num_slots = max(matrix.shape[1] for matrix in trimmed) - 2
    table = torch.zeros(len(trimmed), num_slots, num_slots + 2, dtype=torch.float64)
    for padded, matrix in zip(table, trimmed, strict=True):
        padded[: matrix.shape[0], : matrix.shape[1] - 2] = matrix[:, :-2]
        padded[: matrix.shape[0], num_slots:] = matrix[:, -2:]
    return table
