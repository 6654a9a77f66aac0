"""A sampler as a table: one small matrix for every model call of a request, read off diffusers' own scheduler.

A scheduler's step is linear in what it is given: the latents, what it remembers from earlier steps, the network's
output, fresh noise. Handing it unit vectors instead of pictures (*probing*) therefore reveals its coefficients, to the
last bit of the library's own arithmetic. What is not linear (clipping, thresholding) or not finite is refused, because
the table is replayed once against the scheduler with large random tensors. While drawing, no scheduler exists.
"""

from __future__ import annotations

import copy
import inspect
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import diffusers
import torch

from engine.errors import InvalidParamsError
from engine.samplers import EXCLUSIVE_SCHEDULE_OPTIONS, NOISE_SCHEDULES, Sampler

__all__ = ["Journey", "JourneyCache", "advance", "make_scheduler", "probe", "replay_error"]

# While probing, an "image" is a float64 tensor with one channel per axis of the space that the step is linear in.
NUM_AXES: Final = 16
OUTPUT_AXIS: Final = NUM_AXES - 2
NOISE_AXIS: Final = NUM_AXES - 1
PROBE_SHAPE: Final = (1, NUM_AXES, 1, 1)

# Linear samplers replay to 4e-7 (diffusers casts to float32 inside some of them), clipping ones miss by 5 or more.
MAX_REPLAY_ERROR: Final = 1e-5

# `randn_tensor` is swapped in the scheduler's module, which all threads share.
_probing = threading.Lock()


@dataclass(frozen=True, slots=True, eq=False)
class Journey:
    """One request's way from noise to picture: n model calls, k remembered tensors ("slots"), the latents first.

    Call i: the network sees `input_scales[i] * latents` at `timesteps[i]`; then the slots become
    `matrices[i] @ [slots, network output, noise]`.
    """

    timesteps: torch.Tensor
    """(n,), float32: what the network is told. Fractional for some samplers."""
    input_scales: torch.Tensor
    """(n,), float32."""
    matrices: torch.Tensor
    """(n, k, k + 2), float32: columns are the k slots, the network's output, fresh noise."""
    draws: tuple[bool, ...]
    """(n,): whether diffusers draws fresh noise at that call, even if its coefficient is 0."""
    initial_noise_scale: float
    """Text to image starts from this times standard normal noise."""

    @property
    def num_calls(self) -> int:
        """Model calls, n."""
        return len(self.draws)

    @property
    def num_slots(self) -> int:
        """Remembered tensors, k."""
        return self.matrices.shape[1]


def make_scheduler(sampler: Sampler, noise_schedule: str, config: Mapping[str, object]) -> Any:  # noqa: ANN401 - diffusers ships no types
    """Build the diffusers scheduler as a pipeline would: from the checkpoint's own configuration, plus the choice.

    Args:
        sampler: which class and options.
        noise_schedule: a key of `NOISE_SCHEDULES`.
        config: what the checkpoint's `scheduler_config.json` says.
    """
    scheduler_class = getattr(diffusers, sampler.scheduler_class)
    known = inspect.signature(scheduler_class.__init__).parameters
    options: dict[str, object] = {name: False for name in EXCLUSIVE_SCHEDULE_OPTIONS if name in known}
    options |= {**sampler.options, **NOISE_SCHEDULES[noise_schedule]}
    return scheduler_class.from_config(dict(config), **options)


class JourneyCache:
    """The journeys of one model, each probed once. Safe to use from several threads."""

    def __init__(self, scheduler_config: Mapping[str, object], *, max_entries: int = 256) -> None:
        self._config = dict(scheduler_config)
        self._max_entries = max_entries
        self._journeys: OrderedDict[tuple[str, str, int], Journey] = OrderedDict()
        # Building some schedulers lays out 1000 steps (up to 0.3 s): done once, copied for every table.
        self._prototypes: dict[tuple[str, str], Any] = {}
        self._lock = threading.Lock()

    def get(self, sampler: Sampler, noise_schedule: str, num_inference_steps: int) -> Journey:
        """The journey of a sampler over so many steps.

        Raises:
            InvalidParamsError: with this model's configuration the sampler is no table.
        """
        key = (sampler.name, noise_schedule, num_inference_steps)
        with self._lock:
            journey = self._journeys.get(key)
            if journey is None:
                journey = self._make(sampler, noise_schedule, num_inference_steps)
                self._journeys[key] = journey
                if len(self._journeys) > self._max_entries:
                    self._journeys.popitem(last=False)
            self._journeys.move_to_end(key)
            return journey

    def _make(self, sampler: Sampler, noise_schedule: str, num_inference_steps: int) -> Journey:
        prototype = self._prototypes.get((sampler.name, noise_schedule))
        if prototype is None:
            prototype = make_scheduler(sampler, noise_schedule, self._config)
            self._prototypes[sampler.name, noise_schedule] = prototype
        options = sampler.step_options
        matrices, journey = probe(copy.deepcopy(prototype), num_inference_steps, options)
        error = replay_error(copy.deepcopy(prototype), matrices, num_inference_steps, options)
        if not error <= MAX_REPLAY_ERROR:
            raise InvalidParamsError(
                "sampler", f"must be linear as this model configures it (replay differs by {error:.1g})", sampler.name
            )
        return journey


def probe(
    scheduler: Any,  # noqa: ANN401 - diffusers ships no types
    num_inference_steps: int,
    step_options: Mapping[str, object],
) -> tuple[torch.Tensor, Journey]:
    """Read a scheduler's table off itself. Consumes the scheduler.

    Returns:
        The matrices in float64 (n, k, k + 2), and the journey.

    Raises:
        InvalidParamsError: a coefficient is not finite (diffusers divides by zero in some configurations).
    """
    axes = torch.eye(NUM_AXES, dtype=torch.float64).view(NUM_AXES, *PROBE_SHAPE)
    drawn: list[torch.Tensor] = []
    scales: list[float] = []
    draws: list[bool] = []
    matrices: list[torch.Tensor] = []
    scheduler.set_timesteps(num_inference_steps)
    with _noise_from(scheduler, axes[NOISE_AXIS].clone, drawn):
        for timestep in scheduler.timesteps:
            for slot, (holder, key) in enumerate(_remembered(scheduler, PROBE_SHAPE), start=1):
                holder[key] = axes[slot].clone()
            drawn.clear()
            scales.append(float(scheduler.scale_model_input(axes[0].clone(), timestep).flatten()[0]))
            stepped = scheduler.step(axes[OUTPUT_AXIS].clone(), timestep, axes[0].clone(), **step_options)
            after = [stepped.prev_sample, *(holder[key] for holder, key in _remembered(scheduler, PROBE_SHAPE))]
            if len(drawn) > 1 or len(after) > OUTPUT_AXIS:
                raise AssertionError(f"{type(scheduler).__name__} draws or remembers more than a table has room for")
            draws.append(bool(drawn))
            matrices.append(torch.stack([tensor.double().flatten() for tensor in after]))
    table = _trim(matrices)
    if not table.isfinite().all():
        raise InvalidParamsError(
            "num_inference_steps",
            f"must give finite coefficients with {type(scheduler).__name__} as this model configures it",
            num_inference_steps,
        )
    return table, Journey(
        timesteps=scheduler.timesteps.to(torch.float32),
        input_scales=torch.tensor(scales, dtype=torch.float32),
        matrices=table.to(torch.float32),
        draws=tuple(draws),
        initial_noise_scale=float(scheduler.init_noise_sigma),
    )


def replay_error(
    scheduler: Any,  # noqa: ANN401 - diffusers ships no types
    matrices: torch.Tensor,
    num_inference_steps: int,
    step_options: Mapping[str, object],
) -> float:
    """Follow a table and its scheduler with the same large random tensors. Consumes the scheduler.

    The tensors are 8 times standard normal, so that anything that clips or thresholds shows itself.

    Returns:
        The largest difference of the latents, relative to their largest value; at the first step beyond
        `MAX_REPLAY_ERROR` the rest is not followed.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (1, 4, 4, 4)

    def random() -> torch.Tensor:
        return 8 * torch.randn(shape, generator=generator, dtype=torch.float64)

    drawn: list[torch.Tensor] = []
    worst = 0.0
    slots = torch.zeros(1, matrices.shape[1], *shape[1:], dtype=torch.float64)
    slots[:, 0] = latents = random()
    scheduler.set_timesteps(num_inference_steps)
    with _noise_from(scheduler, random, drawn):
        for timestep, matrix in zip(scheduler.timesteps, matrices, strict=True):
            output = random()
            drawn.clear()
            scheduler.scale_model_input(latents, timestep)
            latents = scheduler.step(output, timestep, latents, **step_options).prev_sample.double()
            slots = advance(slots, output, drawn[0] if drawn else None, matrix[None])
            error = float((slots[:, 0] - latents).abs().max() / latents.abs().max())
            if not error <= MAX_REPLAY_ERROR:  # NaN too
                return error
            worst = max(worst, error)
    return worst


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


@contextmanager
def _noise_from(scheduler: object, draw: Any, drawn: list[torch.Tensor]) -> Iterator[None]:  # noqa: ANN401 - a thunk
    """Let the scheduler's module take its noise from `draw`, and record every tensor it took in `drawn`."""
    module = sys.modules[type(scheduler).__module__]

    def randn_tensor(*_: object, **__: object) -> torch.Tensor:
        drawn.append(draw())
        return drawn[-1]

    with _probing:
        original = getattr(module, "randn_tensor", None)
        setattr(module, "randn_tensor", randn_tensor)  # noqa: B010 - a module of the library, unknown to the type checker
        try:
            yield
        finally:
            if original is None:
                delattr(module, "randn_tensor")
            else:
                setattr(module, "randn_tensor", original)  # noqa: B010 - as above


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
