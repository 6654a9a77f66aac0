"""A sampler as a table: one small matrix for every model call of a request. While drawing, no scheduler exists.

How a table is read off diffusers' own scheduler, is in `probing.py`; where it is kept, in `journey_cache.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from engine.leg import Leg
from engine.models.families import Family
from engine.samplers import SD1_AYS_TIMESTEPS, Sampler

__all__ = ["Journey", "Route", "advance", "route_of"]


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
    known: torch.Tensor
    """(n, 2): what is known of the picture after call i is `known[i, 0]` times its latents plus `known[i, 1]` times the
    first noise: as noisy as what the sampler has drawn by then, and without noise after the last call."""
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
            known=self.known.to(dtype),
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
    ays_timesteps: tuple[int, ...] = SD1_AYS_TIMESTEPS
    """Of the model's family; read where the noise schedule is `ays`."""

    @property
    def step_options(self) -> dict[str, object]:
        """What the scheduler's `step()` is given besides tensors."""
        return {**self.sampler.step_options, **({} if self.eta is None else {"eta": self.eta})}

    @property
    def key(self) -> tuple[object, ...]:
        """What identifies it among other routes."""
        return (
            self.sampler.name,
            self.noise_schedule,
            self.num_inference_steps,
            self.begin,
            self.eta,
            self.ays_timesteps,
        )


def route_of(leg: Leg, family: Family) -> Route:
    """The journey of a leg that a model of this family draws."""
    return Route(
        sampler=leg.sampler,
        noise_schedule=leg.noise_schedule,
        num_inference_steps=leg.schedule_steps,
        begin=leg.begin,
        eta=leg.eta,
        ays_timesteps=family.ays_timesteps,
    )


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
