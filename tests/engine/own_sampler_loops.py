"""The samplers that diffusers lacks, as loops over noise levels: what k-diffusion, A1111 and Forge do, written plainly.

`denoised(x, sigma)` asks the network; `noise()` is fresh noise. Levels fall to 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch

Denoised = Callable[[torch.Tensor, float], torch.Tensor]
Noise = Callable[[], torch.Tensor]
Loop = Callable[[Denoised, torch.Tensor, Sequence[float], float, Noise], torch.Tensor]


def dpmpp_2s_ancestral(
    denoised: Denoised, x: torch.Tensor, sigmas: Sequence[float], _lowest: float, noise: Noise
) -> torch.Tensor:
    """k-diffusion's `sample_dpmpp_2s_ancestral`, eta 1."""
    for i in range(len(sigmas) - 1):
        first = denoised(x, sigmas[i])
        if sigmas[i + 1] == 0:
            return first
        up = math.sqrt(sigmas[i + 1] ** 2 * (sigmas[i] ** 2 - sigmas[i + 1] ** 2) / sigmas[i] ** 2)
        down = math.sqrt(sigmas[i + 1] ** 2 - up**2)
        t, t_next = -math.log(sigmas[i]), -math.log(down)
        h = t_next - t
        middle = math.exp(-(t + h / 2))
        x_2 = middle / sigmas[i] * x - math.expm1(-h / 2) * first
        x = down / sigmas[i] * x - math.expm1(-h) * denoised(x_2, middle)
        x = x + up * noise()
    raise AssertionError("the last level is 0")


def heunpp2(
    denoised: Denoised, x: torch.Tensor, sigmas: Sequence[float], _lowest: float, _noise: Noise
) -> torch.Tensor:
    """Forge's `sample_heunpp2`, without churn."""

    def slope(x: torch.Tensor, sigma: float) -> torch.Tensor:
        return (x - denoised(x, sigma)) / sigma

    for i in range(len(sigmas) - 1):
        d = slope(x, sigmas[i])
        dt = sigmas[i + 1] - sigmas[i]
        if i == len(sigmas) - 2:
            x = x + d * dt
            continue
        x_2 = x + d * dt
        d_2 = slope(x_2, sigmas[i + 1])
        if i == len(sigmas) - 3:
            w2 = sigmas[i + 1] / (2 * sigmas[0])
            x = x + ((1 - w2) * d + w2 * d_2) * dt
            continue
        x_3 = x_2 + d_2 * (sigmas[i + 2] - sigmas[i + 1])
        d_3 = slope(x_3, sigmas[i + 2])
        w2, w3 = sigmas[i + 1] / (3 * sigmas[0]), sigmas[i + 2] / (3 * sigmas[0])
        x = x + ((1 - w2 - w3) * d + w2 * d_2 + w3 * d_3) * dt
    return x


def ipndm(denoised: Denoised, x: torch.Tensor, sigmas: Sequence[float], _lowest: float, _noise: Noise) -> torch.Tensor:
    """ComfyUI's `sample_ipndm`: the last step is the denoised picture itself."""
    before: list[torch.Tensor] = []
    for i in range(len(sigmas) - 1):
        found = denoised(x, sigmas[i])
        if sigmas[i + 1] == 0:
            return found
        d, dt = (x - found) / sigmas[i], sigmas[i + 1] - sigmas[i]
        if i == 0:
            x = x + dt * d
        elif i == 1:
            x = x + dt * (3 * d - before[-1]) / 2
        elif i == 2:
            x = x + dt * (23 * d - 16 * before[-1] + 5 * before[-2]) / 12
        else:
            x = x + dt * (55 * d - 59 * before[-1] + 37 * before[-2] - 9 * before[-3]) / 24
        before.append(d)
    raise AssertionError("the last level is 0")


def ipndm_v(
    denoised: Denoised, x: torch.Tensor, sigmas: Sequence[float], _lowest: float, _noise: Noise
) -> torch.Tensor:
    """ComfyUI's `sample_ipndm_v`, with its own grouping of factors."""
    before: list[torch.Tensor] = []
    for i in range(len(sigmas) - 1):
        found = denoised(x, sigmas[i])
        if sigmas[i + 1] == 0:
            return found
        d = (x - found) / sigmas[i]
        a, b, c, e = (sigmas[i + 1 - k] - sigmas[i - k] if i >= k else math.nan for k in range(4))
        one, two = (2 + a / b) / 2, -a / (2 * b)
        temp1 = (1 - (a / (3 * (a + b))) * (a * (a + b)) / (b * (b + c))) / 2
        temp2 = (
            ((1 - a / (3 * (a + b))) / 2 + (1 - a / (2 * (a + b))) * a / (6 * (a + b + c)))
            * (a * (a + b) * (a + b + c))
            / (b * (b + c) * (b + c + e))
        )
        far = b * (b + c) / (c * (c + e))
        if i == 0:
            change = d
        elif i == 1:
            change = one * d + two * before[-1]
        elif i == 2:
            change = (one + temp1) * d + (two - (1 + b / c) * temp1) * before[-1] + temp1 * b / c * before[-2]
        else:
            change = (
                (one + temp1 + temp2) * d
                + (two - (1 + b / c) * temp1 - (1 + b / c + far) * temp2) * before[-1]
                + (temp1 * b / c + (b / c + far * (1 + c / e)) * temp2) * before[-2]
                - temp2 * far * b / c * before[-3]
            )
        x = x + a * change
        before.append(d)
    raise AssertionError("the last level is 0")


def dpm_fast(
    denoised: Denoised, x: torch.Tensor, sigmas: Sequence[float], lowest: float, _noise: Noise
) -> torch.Tensor:
    """k-diffusion's `DPMSolver.dpm_solver_fast`, eta 0, from the first level to the model's lowest."""
    calls = len(sigmas) - 1
    steps = calls // 3 + 1
    orders = [3] * (steps - 2) + [2, 1] if calls % 3 == 0 else [3] * (steps - 1) + [calls % 3]
    t, t_end = -math.log(sigmas[0]), -math.log(lowest)
    width = (t_end - t) / steps

    def eps(x: torch.Tensor, t: float) -> torch.Tensor:
        return (x - denoised(x, math.exp(-t))) / math.exp(-t)

    for index, order in enumerate(orders):
        t = -math.log(sigmas[0]) + index * width
        t_next = t + width
        h, end = t_next - t, math.exp(-t_next)
        first = eps(x, t)
        if order == 1:
            x = x - end * math.expm1(h) * first
        elif order == 2:
            u = x - math.exp(-(t + h / 2)) * math.expm1(h / 2) * first
            second = eps(u, t + h / 2)
            x = x - end * math.expm1(h) * first - end * math.expm1(h) * (second - first)
        else:
            s_1, s_2 = t + h / 3, t + 2 * h / 3
            u_1 = x - math.exp(-s_1) * math.expm1(h / 3) * first
            second = eps(u_1, s_1)
            bend = math.expm1(2 * h / 3) / (2 * h / 3) - 1
            u_2 = x - math.exp(-s_2) * (math.expm1(2 * h / 3) * first + 2 * bend * (second - first))
            third = eps(u_2, s_2)
            x = x - end * (math.expm1(h) * first + 1.5 * (math.expm1(h) / h - 1) * (third - first))
    return x


def restart(denoised: Denoised, x: torch.Tensor, sigmas: Sequence[float], _lowest: float, noise: Noise) -> torch.Tensor:
    """A1111's `restart_sampler`, except that it never goes back up from level 0; theirs does if 0 is nearest to 0.1."""

    def karras(count: int, lowest: float, highest: float) -> list[float]:
        ramp = torch.linspace(0, 1, count, dtype=torch.float64)
        return list(((highest ** (1 / 7) + ramp * (lowest ** (1 / 7) - highest ** (1 / 7))) ** 7).tolist())

    steps, jumps = len(sigmas) - 1, 0
    levels, again = list(sigmas), [0.0]
    low = -1
    if steps >= 20:
        count, jumps = (9, 1) if steps < 36 else (steps // 4, 2)
        levels = [*karras(steps - count * jumps, sigmas[-2], sigmas[0]), 0.0]
        low = min(range(len(levels) - 1), key=lambda i: abs(levels[i] - 0.1))
        high = min(range(len(levels) - 1), key=lambda i: abs(levels[i] - 2.0))
        again = karras(count + 1, levels[low], levels[high])
    for i in range(len(levels) - 1):
        x = _heun(denoised, x, levels[i], levels[i + 1])
        if i + 1 == low:
            for _ in range(jumps):
                x = x + math.sqrt(again[0] ** 2 - levels[low] ** 2) * noise()
                for j in range(len(again) - 1):
                    x = _heun(denoised, x, again[j], again[j + 1])
    return x


def _heun(denoised: Denoised, x: torch.Tensor, sigma: float, later: float) -> torch.Tensor:
    d = (x - denoised(x, sigma)) / sigma
    x_2 = x + d * (later - sigma)
    if later == 0:
        return x_2
    return x + (d + (x_2 - denoised(x_2, later)) / later) / 2 * (later - sigma)


LOOPS: Mapping[str, Loop] = {
    "DPM++ 2S a": dpmpp_2s_ancestral,
    "HeunPP2": heunpp2,
    "IPNDM": ipndm,
    "IPNDM V": ipndm_v,
    "DPM fast": dpm_fast,
    "Restart": restart,
}
