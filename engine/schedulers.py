"""diffusers' schedulers as a pipeline has them just before the first step. Only `journey.py` lets them step."""

from __future__ import annotations

import functools
import inspect
import math
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import diffusers
import numpy as np
import torch

from engine.errors import InvalidParamsError
from engine.samplers import AYS, EXCLUSIVE_SCHEDULE_OPTIONS, NOISE_SCHEDULES, Sampler

__all__ = ["make_scheduler", "noise_from", "set_timesteps"]

Scheduler = Any
"""A diffusers scheduler; the library ships no types."""

# "Align Your Steps" (Sabour et al., 2024) for Stable Diffusion 1.5, ten steps; diffusers' `AysSchedules`.
AYS_TIMESTEPS: Final = (999, 850, 736, 645, 545, 455, 343, 233, 124, 24)

GAUSS_LEGENDRE: Final = ((-math.sqrt(3 / 5), 5 / 9), (0.0, 8 / 9), (math.sqrt(3 / 5), 5 / 9))
"""Nodes and weights on [-1, 1]."""

# `randn_tensor` is swapped in the scheduler's module, which all threads share.
_borrowing_noise = threading.Lock()


def make_scheduler(sampler: Sampler, noise_schedule: str, config: Mapping[str, object]) -> Scheduler:
    """Build the scheduler as a pipeline would: from the checkpoint's own configuration, plus the choice.

    Args:
        sampler: which class and options.
        noise_schedule: a key of `NOISE_SCHEDULES`.
        config: what the checkpoint's `scheduler_config.json` says.
    """
    scheduler_class = getattr(diffusers, sampler.scheduler_class)
    known = inspect.signature(scheduler_class.__init__).parameters
    options: dict[str, object] = {name: False for name in EXCLUSIVE_SCHEDULE_OPTIONS if name in known}
    options |= {**sampler.options, **NOISE_SCHEDULES[noise_schedule]}
    # Some constructors lay out all 1000 training steps, in up to 0.3 s, only for `set_timesteps` to lay out others.
    hasty_class: Any = type(scheduler_class.__name__, (scheduler_class,), {"set_timesteps": _few_timesteps})
    scheduler = hasty_class.from_config(dict(config), **options)
    scheduler.__class__ = scheduler_class
    return scheduler


def _few_timesteps(scheduler: Scheduler, *_: object, **__: object) -> None:
    super(type(scheduler), scheduler).set_timesteps(3)


def set_timesteps(
    scheduler: Scheduler, sampler: Sampler, noise_schedule: str, num_inference_steps: int, begin: int = 0
) -> torch.Tensor:
    """Lay out the steps, and enter them at step `begin`.

    Returns:
        The timesteps of the model calls that remain.

    Raises:
        InvalidParamsError: the sampler cannot take so many steps.
    """
    try:
        if noise_schedule == AYS:
            scheduler.set_timesteps(timesteps=_ays_timesteps(scheduler, num_inference_steps))
        else:
            scheduler.set_timesteps(num_inference_steps)
    except ValueError as error:
        rule = f"must suit the sampler {sampler.name} (diffusers: {error})"
        raise InvalidParamsError("num_inference_steps", rule, num_inference_steps) from error
    if begin and sampler.is_cut_when_entered:
        _cut(scheduler, begin)
        begin = 0
    if hasattr(scheduler, "get_lms_coefficient"):
        scheduler.get_lms_coefficient = functools.partial(_lms_coefficient, scheduler)
    begin *= scheduler.order
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    timesteps: torch.Tensor = scheduler.timesteps[begin:]
    return timesteps


def _ays_timesteps(scheduler: Scheduler, num_inference_steps: int) -> list[int]:
    """The published ten timesteps; other counts are interpolated between their noise levels, linearly in log sigma."""
    alphas = scheduler.alphas_cumprod.double().numpy()
    log_sigmas = np.log(((1 - alphas) / alphas) ** 0.5)
    published = log_sigmas[list(AYS_TIMESTEPS)]
    places = np.linspace(0, 1, num_inference_steps)
    wanted = np.interp(places, np.linspace(0, 1, len(published)), published)
    return [int(step) for step in np.interp(wanted, log_sigmas, np.arange(len(log_sigmas))).round()]


def _lms_coefficient(scheduler: Scheduler, order: int, step: int, index: int) -> float:
    """The integral of a Lagrange basis polynomial over one step, as `LMSDiscreteScheduler.get_lms_coefficient`.

    diffusers integrates numerically, half a millisecond each; three Gauss-Legendre points are exact up to degree 5.
    """
    sigmas = [float(sigma) for sigma in scheduler.sigmas[max(0, step - order + 1) : step + 2]]
    begin, end = sigmas[-2], sigmas[-1]
    history = sigmas[-2::-1]
    middle, half = (begin + end) / 2, (end - begin) / 2
    others = [sigma for place, sigma in enumerate(history[:order]) if place != index]
    return half * sum(
        weight * math.prod((middle + half * node - other) / (history[index] - other) for other in others)
        for node, weight in GAUSS_LEGENDRE
    )


def _cut(scheduler: Scheduler, begin: int) -> None:
    """Forget the first `begin` steps, as if the schedule had never had them."""
    if hasattr(scheduler, "sigmas"):
        scheduler.timesteps = scheduler.timesteps[begin:]
        scheduler.sigmas = scheduler.sigmas[begin:]
        return
    # PNDM takes its second step twice: [a, b, b, c, ...]. Without the repetition these are the schedule's own steps.
    steps = torch.cat([scheduler.timesteps[:1], scheduler.timesteps[2:]])[begin:]
    scheduler.timesteps = torch.cat([steps[:2], steps[1:2], steps[2:]])


@contextmanager
def noise_from(scheduler: Scheduler, draw: Callable[[], torch.Tensor], drawn: list[torch.Tensor]) -> Iterator[None]:
    """Let the scheduler take its noise from `draw`, and record every tensor it took in `drawn`."""

    def take(*_: object, **__: object) -> torch.Tensor:
        drawn.append(draw())
        return drawn[-1]

    if hasattr(scheduler, "noise_sampler"):
        scheduler.noise_sampler = _BrownianPath(scheduler, take)
    module = sys.modules[type(scheduler).__module__]
    with _borrowing_noise:
        original = getattr(module, "randn_tensor", None)
        setattr(module, "randn_tensor", take)  # noqa: B010 - a module of the library, unknown to the type checker
        try:
            yield
        finally:
            if original is None:
                delattr(module, "randn_tensor")
            else:
                setattr(module, "randn_tensor", original)  # noqa: B010 - as above


class _BrownianPath:
    """Stands in for the Brownian tree of DPM++ SDE, so that torchsde is not needed while drawing.

    The second call of a step spans the first one's interval and a bit more. Increments over disjoint intervals are
    independent, so the first draw, kept on the scheduler and hence in a slot, plus one fresh draw has exactly the
    tree's law.
    """

    def __init__(self, scheduler: Scheduler, take: Callable[[], torch.Tensor]) -> None:
        self._scheduler = scheduler
        self._take = take
        self._reached = 0.0

    def __call__(self, sigma: torch.Tensor, sigma_next: torch.Tensor) -> torch.Tensor:
        """The increment from one noise level to the next, of unit variance."""
        begin, end = float(sigma), float(sigma_next)
        fresh = self._take()
        kept: torch.Tensor | None = vars(self._scheduler).get("brownian_increment")
        if kept is None:
            self._scheduler.brownian_increment = fresh
            self._reached = end
            return fresh
        self._scheduler.brownian_increment = None
        done, rest = begin - self._reached, self._reached - end
        increment: torch.Tensor = (done**0.5 * kept + rest**0.5 * fresh) / (done + rest) ** 0.5
        return increment
