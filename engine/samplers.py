"""The samplers people know by name, and the diffusers scheduler behind each. No torch, no diffusers: only names.

A *sampler* is how a step is taken, a *noise schedule* is which noise levels the steps visit. How a sampler becomes a
table of numbers is in `journey.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from engine.errors import InvalidParamsError

__all__ = ["NOISE_SCHEDULES", "SAMPLERS", "Sampler", "resolve_sampler"]

NOISE_SCHEDULES: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {
        "default": MappingProxyType({}),
        "karras": MappingProxyType({"use_karras_sigmas": True}),
    }
)
"""Name of a noise schedule -> the scheduler options that select it. `default` is what diffusers gives the sampler's
class when it is built from the checkpoint's own scheduler configuration."""

EXCLUSIVE_SCHEDULE_OPTIONS = (
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "use_lu_lambdas",
    "use_flow_sigmas",
)
"""Switched off before a schedule's own options are applied, so that a checkpoint's configuration cannot mix two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """A way to take one denoising step, by the name people know it by."""

    name: str
    """Our name for it, used in every answer."""
    scheduler_class: str
    """The diffusers class its tables are read from."""
    aliases: tuple[str, ...] = ()
    """Other names: diffusers' class name, AUTOMATIC1111's label. Case, spaces, `_` and `-` do not matter."""
    noise_schedules: tuple[str, ...] = ("default",)
    """The noise schedules it can be combined with (keys of `NOISE_SCHEDULES`)."""
    is_stochastic: bool = False
    """Draws fresh noise while it steps, so that the same seed gives the same picture but more steps do not converge."""
    options: Mapping[str, object] = field(default_factory=dict)
    """Scheduler options that make this sampler out of its class."""
    step_options: Mapping[str, object] = field(default_factory=dict)
    """Options handed to every `step()`."""

    def model_calls(self, num_inference_steps: int) -> int:
        """How often the model is called for one picture of `num_inference_steps` steps, guided or not."""
        return num_inference_steps


SAMPLERS: Mapping[str, Sampler] = MappingProxyType(
    {
        sampler.name: sampler
        for sampler in (
            Sampler(
                name="DPMSolver++",
                scheduler_class="DPMSolverMultistepScheduler",
                aliases=("DPMSolverMultistepScheduler", "DPM++ 2M", "dpmpp_2m"),
                noise_schedules=("default", "karras"),
                options={"algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint"},
            ),
            Sampler(
                name="Euler",
                scheduler_class="EulerDiscreteScheduler",
                aliases=("EulerDiscreteScheduler",),
                noise_schedules=("default", "karras"),
            ),
            Sampler(
                name="Euler a",
                scheduler_class="EulerAncestralDiscreteScheduler",
                aliases=("EulerAncestralDiscreteScheduler", "Euler ancestral"),
                is_stochastic=True,
            ),
            Sampler(
                name="DDIM",
                scheduler_class="DDIMScheduler",
                aliases=("DDIMScheduler",),
            ),
        )
    }
)
"""Every sampler, by our name."""


def _key(label: str) -> str:
    return re.sub(r"[\s_-]+", "", label).casefold()


_BY_KEY = {_key(label): sampler for sampler in SAMPLERS.values() for label in (sampler.name, *sampler.aliases)}
_SCHEDULE_KEYS = {_key(name): name for name in NOISE_SCHEDULES}


def resolve_sampler(
    sampler: str, noise_schedule: str | None = None, *, prefer_karras: bool = False
) -> tuple[Sampler, str]:
    """Find what a caller means by `sampler` and `noise_schedule`.

    A label may name both (`DPM++ 2M Karras`). Where neither names a schedule it is `karras` if `prefer_karras` and the
    sampler takes it, else `default`. Nothing that was asked for is replaced.

    Returns:
        The sampler, and the name of its noise schedule (a key of `NOISE_SCHEDULES`).

    Raises:
        InvalidParamsError: unknown name, or a pair that cannot be; the message lists the ones that can.
    """
    found, label_schedule = _split_label(sampler)
    if noise_schedule is None:
        karras = prefer_karras and "karras" in found.noise_schedules
        wanted = label_schedule or ("karras" if karras else "default")
    else:
        wanted = _SCHEDULE_KEYS.get(_key(noise_schedule), noise_schedule)
        if label_schedule and label_schedule != wanted:
            raise InvalidParamsError(
                "noise_schedule", f"must agree with the sampler {sampler!r} or be left out", noise_schedule
            )
    if wanted not in found.noise_schedules:
        choices = ", ".join(found.noise_schedules)
        raise InvalidParamsError("noise_schedule", f"must be one of {choices} with the sampler {found.name}", wanted)
    return found, wanted


def _split_label(label: str) -> tuple[Sampler, str | None]:
    """The sampler that a label names, and the noise schedule if the label ends with one."""
    key = _key(label)
    if key in _BY_KEY:
        return _BY_KEY[key], None
    for schedule_key, schedule in _SCHEDULE_KEYS.items():
        sampler = _BY_KEY.get(key.removesuffix(schedule_key)) if key.endswith(schedule_key) else None
        if sampler is not None:
            return sampler, schedule
    raise InvalidParamsError("sampler", f"must be one of {', '.join(SAMPLERS)} (or an alias)", label)
