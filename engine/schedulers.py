"""diffusers' schedulers, set up as in a pipeline before the first step. Only `probing.py` lets them step.

The library is imported when the first is made, which takes seconds: tables are kept on disk (`table_store.py`).
"""

from __future__ import annotations

import functools
import inspect
import itertools
import math
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import torch

from engine.errors import InvalidParamsError
from engine.samplers import AYS, EXCLUSIVE_SCHEDULE_OPTIONS, NOISE_SCHEDULES, SD1_AYS_TIMESTEPS, Sampler

__all__ = ["alphas_cumprod", "make_scheduler", "noise_from", "set_timesteps"]

Scheduler = Any
"""A diffusers scheduler; the library ships no types."""

GAUSS_LEGENDRE: Final = ((-math.sqrt(3 / 5), 5 / 9), (0.0, 8 / 9), (math.sqrt(3 / 5), 5 / 9))
"""Nodes and weights on [-1, 1]."""

# `randn_tensor` is swapped in the scheduler's module, which all threads share.
_borrowing_noise = threading.Lock()


_SOLVER_OPTIONS = ("algorithm_type", "solver_type", "solver_order")
"""The choice of a sampler, which a checkpoint that was saved with one of them names too."""


def make_scheduler(sampler: Sampler, noise_schedule: str, config: Mapping[str, object]) -> Scheduler:
    """Build the scheduler as a pipeline would: from the checkpoint's own configuration, plus the choice.

    Args:
        sampler: which class and options.
        noise_schedule: a key of `NOISE_SCHEDULES`.
        config: what the checkpoint's `scheduler_config.json` says.
    """
    import diffusers  # noqa: PLC0415 - 2 s; most starts find every table that they need on disk

    scheduler_class = getattr(diffusers, sampler.scheduler_class)
    known = inspect.signature(scheduler_class.__init__).parameters
    options: dict[str, object] = {name: False for name in EXCLUSIVE_SCHEDULE_OPTIONS if name in known}
    options |= {**sampler.options, **NOISE_SCHEDULES[noise_schedule]}
    # Some constructors lay out all 1000 training steps, in up to 0.3 s, only for `set_timesteps` to lay out others.
    hasty_class: Any = type(scheduler_class.__name__, (scheduler_class,), {"set_timesteps": _few_timesteps})
    # What a class does not know it ignores, but not without a line on stderr.
    noise = {name: value for name, value in config.items() if name in known and name not in _SOLVER_OPTIONS}
    scheduler = hasty_class.from_config(noise, **options)
    scheduler.__class__ = scheduler_class
    return scheduler


def alphas_cumprod(config: Mapping[str, object]) -> torch.Tensor:
    """The share of the picture in the variance of what the network is shown, at each timestep of the training.

    The same numbers as every diffusers scheduler has under this name, without diffusers.

    Args:
        config: what the checkpoint's `scheduler_config.json` says; checked by `models/layout.py`.

    Returns:
        (1000,) or as many as the checkpoint was trained with, float32, falling.
    """
    found: dict[str, Any] = {name: value for name, value in config.items() if value is not None}
    begin, end = found.get("beta_start", 0.0001), found.get("beta_end", 0.02)
    count = found.get("num_train_timesteps", 1000)
    if "trained_betas" in found:
        betas = torch.tensor(found["trained_betas"], dtype=torch.float32)
    elif found.get("beta_schedule", "linear") == "linear":
        betas = torch.linspace(begin, end, count, dtype=torch.float32)
    elif found["beta_schedule"] == "scaled_linear":
        betas = torch.linspace(begin**0.5, end**0.5, count, dtype=torch.float32) ** 2
    else:  # squaredcos_cap_v2: Nichol and Dhariwal (2021), equation 17
        levels = [math.cos((step / count + 0.008) / 1.008 * math.pi / 2) ** 2 for step in range(count + 1)]
        pairs = itertools.pairwise(levels)
        betas = torch.tensor([min(1 - after / before, 0.999) for before, after in pairs], dtype=torch.float32)
    if found.get("rescale_betas_zero_snr"):
        return _zero_terminal_snr(torch.cumprod(1.0 - betas, dim=0))
    return torch.cumprod(1.0 - betas, dim=0)


def _zero_terminal_snr(levels: torch.Tensor) -> torch.Tensor:
    """Shift and scale them so that the last is 0 and the first is kept: Lin et al. (2023), algorithm 1."""
    roots = levels.sqrt()
    first, last = roots[0], roots[-1]
    return ((roots - last) * (first / (first - last))) ** 2


def _few_timesteps(scheduler: Scheduler, *_: object, **__: object) -> None:
    super(type(scheduler), scheduler).set_timesteps(3)


def set_timesteps(
    scheduler: Scheduler,
    sampler: Sampler,
    noise_schedule: str,
    num_inference_steps: int,
    begin: int = 0,
    ays_timesteps: Sequence[int] = SD1_AYS_TIMESTEPS,
) -> torch.Tensor:
    """Lay out the steps, and enter them at step `begin`.

    Args:
        scheduler: as `make_scheduler` made it.
        sampler: the same.
        noise_schedule: the same.
        num_inference_steps: how many.
        begin: the first that is taken.
        ays_timesteps: the published ones of the model's family, for the noise schedule `ays`.

    Returns:
        The timesteps of the model calls that remain.

    Raises:
        InvalidParamsError: the sampler cannot take so many steps.
    """
    try:
        if noise_schedule == AYS:
            scheduler.set_timesteps(timesteps=_ays_timesteps(scheduler, num_inference_steps, ays_timesteps))
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


def _ays_timesteps(scheduler: Scheduler, num_inference_steps: int, published_timesteps: Sequence[int]) -> list[int]:
    """The published ten timesteps; other counts are interpolated between their noise levels, linearly in log sigma."""
    # Zero terminal SNR: the last sigma would be infinite. The bound is that of diffusers' Euler and DPM-Solver classes.
    alphas = scheduler.alphas_cumprod.double().clamp(min=2**-24).numpy()
    log_sigmas = np.log(((1 - alphas) / alphas) ** 0.5)
    published = log_sigmas[list(published_timesteps)]
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
