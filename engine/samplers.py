"""Sampler names and aliases, and the diffusers scheduler of each. No torch, no diffusers: only names.

A *sampler* is how a step is taken, a *noise schedule* is which noise levels the steps visit. How a sampler becomes a
table of numbers is in `journey.py`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

from engine.errors import InvalidParamsError

__all__ = ["AYS", "NOISE_SCHEDULES", "SAMPLERS", "SD1_AYS_TIMESTEPS", "Sampler", "resolve_sampler"]

AYS: Final = "ays"
"""The noise schedule whose timesteps are a published list, not an option of the scheduler."""

SD1_AYS_TIMESTEPS: Final = (999, 850, 736, 645, 545, 455, 343, 233, 124, 24)
"""That list for Stable Diffusion 1.5: "Align Your Steps" (Sabour et al., 2024), as diffusers' `AysSchedules`."""

_NOISE_SCHEDULES: dict[str, dict[str, object]] = {
    "default": {},
    "leading": {"timestep_spacing": "leading"},
    "trailing": {"timestep_spacing": "trailing"},
    "linspace": {"timestep_spacing": "linspace"},
    "karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
    "beta": {"use_beta_sigmas": True},
    "lu": {"use_lu_lambdas": True},
    AYS: {},
}
NOISE_SCHEDULES: Mapping[str, Mapping[str, object]] = MappingProxyType(_NOISE_SCHEDULES)
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

_SPACINGS = ("default", "leading", "trailing", "linspace")
_SIGMAS = (*_SPACINGS, "karras", "exponential", "beta")

ModelCalls = Literal["n", "n + 1", "2n - 1", "3n - 3"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """A way to take one denoising step, by the name people know it by."""

    name: str
    """Our name for it, used in every answer."""
    scheduler_class: str
    """The diffusers class its tables are read from; of our own samplers, their noise levels alone."""
    aliases: tuple[str, ...] = ()
    """Other names: diffusers' class name, AUTOMATIC1111's label. Case, spaces, `_` and `-` do not matter."""
    noise_schedules: tuple[str, ...] = _SIGMAS
    """The noise schedules it can be combined with (keys of `NOISE_SCHEDULES`)."""
    calls: ModelCalls = "n"
    """Model calls of n steps."""
    is_stochastic: bool = False
    """Draws fresh noise while it steps: the same seed gives the same picture, but more steps do not converge."""
    default_eta: float | None = None
    """Share of fresh noise, 0 to 1, where the caller may choose it; None where there is nothing to choose."""
    is_cut_when_entered: bool = False
    """Entered in the middle by cutting the schedule: diffusers' own way in takes its order from steps that were never
    taken, and leaves noise in the picture."""
    is_own: bool = False
    """Whether diffusers lacks it, and its steps are those of `slopes.py`."""
    options: Mapping[str, object] = field(default_factory=dict)
    """Scheduler options that make this sampler out of its class."""
    step_options: Mapping[str, object] = field(default_factory=dict)
    """Options handed to every `step()`."""

    def model_calls(self, num_inference_steps: int) -> int:
        """How often the model is called for one picture of so many steps, guided or not."""
        match self.calls:
            case "n":
                return num_inference_steps
            case "n + 1":  # the second step is taken twice; a lone step has no second
                return num_inference_steps + (num_inference_steps > 1)
            case "2n - 1":  # two calls a step, but the last one needs no correction
                return 2 * num_inference_steps - 1
            case "3n - 3":  # three calls a step, but two in the last but one and one in the last
                return max(1, 3 * num_inference_steps - 3)


def _multistep(name: str, *aliases: str, **options: object) -> Sampler:
    return Sampler(
        name=name,
        scheduler_class="DPMSolverMultistepScheduler",
        aliases=aliases,
        noise_schedules=(*_SIGMAS, "lu", AYS),
        is_stochastic=options["algorithm_type"] == "sde-dpmsolver++",
        options={"solver_type": "midpoint", **options},
    )


def _singlestep(name: str, *aliases: str, solver_order: int) -> Sampler:
    return Sampler(
        name=name,
        scheduler_class="DPMSolverSinglestepScheduler",
        aliases=aliases,
        noise_schedules=("default", "karras", "exponential", "beta", AYS),
        options={"algorithm_type": "dpmsolver++", "solver_order": solver_order, "solver_type": "midpoint"},
    )


def _own(
    name: str,
    *aliases: str,
    calls: ModelCalls = "n",
    is_stochastic: bool = False,
    noise_schedules: tuple[str, ...] = (*_SIGMAS, AYS),
) -> Sampler:
    """One that diffusers lacks, along the noise levels of its Euler; entered as k-diffusion and A1111 do."""
    return Sampler(
        name=name,
        scheduler_class="EulerDiscreteScheduler",
        aliases=aliases,
        noise_schedules=noise_schedules,
        calls=calls,
        is_stochastic=is_stochastic,
        is_cut_when_entered=True,
        is_own=True,
    )


SAMPLERS: Mapping[str, Sampler] = MappingProxyType(
    {
        sampler.name: sampler
        for sampler in (
            _multistep(
                "DPMSolver++",
                *("DPM++ 2M", "DPMSolverMultistepScheduler", "dpmpp_2m"),
                algorithm_type="dpmsolver++",
                solver_order=2,
            ),
            _multistep("DPM++ 3M", "dpmpp_3m", algorithm_type="dpmsolver++", solver_order=3),
            _multistep("DPM++ 2M SDE", "dpmpp_2m_sde", algorithm_type="sde-dpmsolver++", solver_order=2),
            _multistep(
                "DPM++ 2M SDE Heun",
                "dpmpp_2m_sde_heun",
                algorithm_type="sde-dpmsolver++",
                solver_order=2,
                solver_type="heun",
            ),
            _multistep("DPM++ 3M SDE", "dpmpp_3m_sde", algorithm_type="sde-dpmsolver++", solver_order=3),
            _singlestep("DPM++ 2S", "DPMSolverSinglestepScheduler", "dpmpp_2s", solver_order=2),
            _singlestep("DPM++ 3S", "dpmpp_3s", solver_order=3),
            Sampler(
                name="DPM++ SDE",
                scheduler_class="DPMSolverSDEScheduler",
                aliases=("DPMSolverSDEScheduler", "dpmpp_sde"),
                calls="2n - 1",
                is_stochastic=True,
            ),
            Sampler(
                name="Euler",
                scheduler_class="EulerDiscreteScheduler",
                aliases=("EulerDiscreteScheduler",),
                noise_schedules=(*_SIGMAS, AYS),
            ),
            Sampler(
                name="Euler a",
                scheduler_class="EulerAncestralDiscreteScheduler",
                aliases=("EulerAncestralDiscreteScheduler", "Euler ancestral"),
                noise_schedules=_SPACINGS,
                is_stochastic=True,
            ),
            Sampler(
                name="Euler churn",
                scheduler_class="EulerDiscreteScheduler",
                aliases=("Euler with churn",),
                noise_schedules=(*_SIGMAS, AYS),
                is_stochastic=True,
                # In the range that Karras et al. (2022), table 5, found to help; outside it diffusers draws noise too.
                step_options={"s_churn": 5.0, "s_tmin": 0.1, "s_tmax": 10.0, "s_noise": 1.003},
            ),
            Sampler(
                name="Heun",
                scheduler_class="HeunDiscreteScheduler",
                aliases=("HeunDiscreteScheduler",),
                noise_schedules=(*_SIGMAS, AYS),
                calls="2n - 1",
                options={"clip_sample": False},
            ),
            Sampler(
                name="DPM2",
                scheduler_class="KDPM2DiscreteScheduler",
                aliases=("KDPM2DiscreteScheduler", "dpm_2"),
                calls="2n - 1",
            ),
            Sampler(
                name="DPM2 a",
                scheduler_class="KDPM2AncestralDiscreteScheduler",
                aliases=("KDPM2AncestralDiscreteScheduler", "DPM2 ancestral", "dpm_2_ancestral"),
                calls="2n - 1",
                is_stochastic=True,
            ),
            Sampler(
                name="LMS",
                scheduler_class="LMSDiscreteScheduler",
                aliases=("LMSDiscreteScheduler",),
                is_cut_when_entered=True,
            ),
            Sampler(
                name="DDIM",
                scheduler_class="DDIMScheduler",
                aliases=("DDIMScheduler",),
                noise_schedules=_SPACINGS,
                default_eta=0.0,
            ),
            Sampler(
                name="DDPM",
                scheduler_class="DDPMScheduler",
                aliases=("DDPMScheduler",),
                noise_schedules=(*_SPACINGS, AYS),
                is_stochastic=True,
            ),
            Sampler(
                name="PNDM",
                scheduler_class="PNDMScheduler",
                aliases=("PNDMScheduler", "PLMS"),
                noise_schedules=_SPACINGS,
                calls="n + 1",
                is_cut_when_entered=True,
                options={"skip_prk_steps": True},
            ),
            Sampler(name="DEIS", scheduler_class="DEISMultistepScheduler", aliases=("DEISMultistepScheduler",)),
            Sampler(name="UniPC", scheduler_class="UniPCMultistepScheduler", aliases=("UniPCMultistepScheduler",)),
            Sampler(
                name="SA-Solver",
                scheduler_class="SASolverScheduler",
                aliases=("SASolverScheduler",),
                is_stochastic=True,
            ),
            Sampler(
                name="LCM",
                scheduler_class="LCMScheduler",
                aliases=("LCMScheduler",),
                noise_schedules=("default",),
                is_stochastic=True,
            ),
            Sampler(
                name="TCD",
                scheduler_class="TCDScheduler",
                aliases=("TCDScheduler",),
                noise_schedules=("default",),
                is_stochastic=True,
                default_eta=0.3,
            ),
            _own("DPM++ 2S a", "DPM++ 2S ancestral", "dpmpp_2s_ancestral", calls="2n - 1", is_stochastic=True),
            _own("HeunPP2", "Heun++", "Heun++2", calls="3n - 3"),
            _own("IPNDM"),
            _own("IPNDM V"),
            _own("DPM fast", noise_schedules=("default",)),
            _own("Restart", calls="2n - 1", is_stochastic=True),
        )
    }
)
"""Every sampler, by our name."""


def _key(label: str) -> str:
    return re.sub(r"[\s_-]+", "", label).casefold()


_BY_KEY = {_key(label): sampler for sampler in SAMPLERS.values() for label in (sampler.name, *sampler.aliases)}
_SCHEDULE_KEYS = {_key(name): name for name in NOISE_SCHEDULES}


@functools.lru_cache(maxsize=256)
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
