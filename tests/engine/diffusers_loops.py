"""The denoising loops of diffusers and of k-diffusion, with the random numbers and the network that a test gives."""

from __future__ import annotations

import importlib.util
import inspect
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

import diffusers
import numpy as np
import torch
from torch.nn.functional import conv2d

from engine.journey import Route
from engine.samplers import AYS
from engine.schedulers import make_scheduler, set_timesteps
from tests.engine.own_sampler_loops import LOOPS

Network = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@cache
def fixed_network(dtype: torch.dtype) -> Network:
    """A small function that stands in for a network."""
    weights = torch.randn(4, 4, 3, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64).to(dtype)

    def predict(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return torch.tanh(0.4 * conv2d(latents, weights, padding=1) + torch.sin(timestep.to(dtype) / 300))

    return predict


def diffusers_loop(
    wanted: Route,
    config: dict[str, Any],
    image: torch.Tensor,
    noise: list[torch.Tensor],
    dtype: torch.dtype,
    network: Network | None = None,
) -> tuple[torch.Tensor, int]:
    """The denoising loop of diffusers' pipelines, with `noise` for its random numbers.

    Returns:
        The final latents, and how many draws were taken after the initial one.
    """
    network = network or fixed_network(dtype)
    sampler = wanted.sampler
    if sampler.is_own:
        return own_loop(wanted, config, image, noise, network)
    scheduler = _scheduler_class(sampler.scheduler_class, dtype).from_config(
        dict(config), **sampler.options, **_OPTIONS.get(wanted.noise_schedule, {})
    )
    if wanted.noise_schedule == AYS:
        # Our own interpolation for other counts than ten; what is compared is what diffusers makes of the timesteps.
        ours = make_scheduler(sampler, AYS, config)
        set_timesteps(ours, sampler, AYS, wanted.num_inference_steps)
        scheduler.set_timesteps(timesteps=_whole_steps(ours))
    else:
        scheduler.set_timesteps(wanted.num_inference_steps)
    begin = wanted.begin
    if begin and sampler.name == "LMS":
        scheduler.timesteps, scheduler.sigmas = scheduler.timesteps[begin:], scheduler.sigmas[begin:]
        begin = 0
    elif begin and sampler.name == "PNDM":
        steps = sorted({int(step) for step in scheduler.timesteps}, reverse=True)[begin:]
        scheduler.timesteps = torch.tensor([steps[0], *steps[1:2], *steps[1:]])
        begin = 0
    begin *= scheduler.order
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    timesteps = scheduler.timesteps[begin:]
    draws = iter(noise)
    taken: list[torch.Tensor] = []
    first = next(draws)
    latents = scheduler.add_noise(image, first, timesteps[:1]) if wanted.begin else first * scheduler.init_noise_sigma
    with _noise(scheduler, draws, taken):
        for timestep in timesteps:
            output = network(scheduler.scale_model_input(latents, timestep), timestep)
            latents = scheduler.step(output, timestep, latents, **wanted.step_options).prev_sample
    return latents, len(taken)


def own_loop(
    wanted: Route, config: dict[str, Any], image: torch.Tensor, noise: list[torch.Tensor], network: Network
) -> tuple[torch.Tensor, int]:
    """The same for samplers that diffusers lacks: `own_sampler_loops.py` along the levels of diffusers' Euler."""
    scheduler = diffusers.EulerDiscreteScheduler.from_config(dict(config), **_OPTIONS.get(wanted.noise_schedule, {}))
    if wanted.noise_schedule == AYS:
        ours = make_scheduler(wanted.sampler, AYS, config)
        set_timesteps(ours, wanted.sampler, AYS, wanted.num_inference_steps)
        scheduler.set_timesteps(timesteps=_whole_steps(ours))
    else:
        scheduler.set_timesteps(wanted.num_inference_steps)
    sigmas = [float(sigma) for sigma in scheduler.sigmas[wanted.begin :]]
    shares = scheduler.alphas_cumprod.double()
    trained = ((1 - shares) / shares).sqrt().log().numpy()
    told = dict(zip(sigmas, scheduler.timesteps[wanted.begin :].tolist(), strict=False))
    num_drawn = 0

    def denoised(latents: torch.Tensor, sigma: float) -> torch.Tensor:
        timestep = next((told[level] for level in told if math.isclose(level, sigma, rel_tol=1e-9)), None)
        if timestep is None:
            timestep = float(np.interp(math.log(sigma), trained, range(len(trained))))
        scale = math.sqrt(sigma**2 + 1)
        output = network(latents / scale, torch.tensor(timestep, dtype=torch.float64))
        if config["prediction_type"] == "epsilon":
            return latents - sigma * output
        return latents / scale**2 - sigma / scale * output

    def draw() -> torch.Tensor:
        nonlocal num_drawn
        num_drawn += 1
        return noise[num_drawn]

    start = image + sigmas[0] * noise[0] if wanted.begin else noise[0] * scheduler.init_noise_sigma
    lowest = float(((1 - shares[0]) / shares[0]).sqrt())
    return LOOPS[wanted.sampler.name](denoised, start, sigmas, lowest, draw), num_drawn


# Written by hand, so that a slip in `samplers.py` shows.
_OPTIONS: dict[str, dict[str, object]] = {
    "leading": {"timestep_spacing": "leading"},
    "trailing": {"timestep_spacing": "trailing"},
    "linspace": {"timestep_spacing": "linspace"},
    "karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
    "beta": {"use_beta_sigmas": True},
    "lu": {"use_lu_lambdas": True},
}


def _whole_steps(scheduler: Any) -> list[int]:
    """The timesteps of a laid-out scheduler, without the second call that some make at each."""
    return list(dict.fromkeys(int(step) for step in scheduler.timesteps))


@cache
def _scheduler_class(name: str, dtype: torch.dtype) -> Any:
    """The diffusers class; for float64 without the casts to float32 that three of them make inside a step."""
    original = getattr(diffusers, name)
    if dtype != torch.float64:
        return original
    module = sys.modules[original.__module__]
    source = inspect.getsource(module).replace("sample = sample.to(torch.float32)", "pass")
    exact = ModuleType(f"{module.__name__}_exact")
    exact.__spec__ = importlib.util.spec_from_loader(exact.__name__, loader=None)
    exact.__package__ = module.__package__
    sys.modules[exact.__name__] = exact
    exec(compile(source, exact.__name__, "exec"), vars(exact))
    return getattr(exact, name)


@contextmanager
def _noise(scheduler: Any, draws: Iterator[torch.Tensor], taken: list[torch.Tensor]) -> Iterator[None]:
    module = sys.modules[type(scheduler).__module__]

    def take(*_: object, **__: object) -> torch.Tensor:
        taken.append(next(draws))
        return taken[-1]

    if hasattr(scheduler, "noise_sampler"):
        scheduler.noise_sampler = _TwoDraws(take)
    original = getattr(module, "randn_tensor", None)
    module.randn_tensor = take  # type: ignore[attr-defined] # the module's own source of noise
    try:
        yield
    finally:
        module.randn_tensor = original  # type: ignore[attr-defined] # as above


class _TwoDraws:
    """A Brownian path from two independent draws a step, for DPM++ SDE: increments over a step and its first part."""

    def __init__(self, take: Callable[[], torch.Tensor]) -> None:
        self.take = take
        self.first: tuple[float, torch.Tensor] | None = None

    def __call__(self, sigma: torch.Tensor, sigma_next: torch.Tensor) -> torch.Tensor:
        begin, end = float(sigma), float(sigma_next)
        if self.first is None:
            self.first = end, self.take()
            return self.first[1]
        middle, increment = self.first
        self.first = None
        path = math.sqrt(begin - middle) * increment + math.sqrt(middle - end) * self.take()
        return path / math.sqrt(begin - end)
