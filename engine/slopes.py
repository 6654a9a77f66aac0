"""The samplers that diffusers lacks, as numbers: at which noise levels the network is asked, and what follows from it.

Each call gives a slope: how the latents change with the noise level there. The next point is where the current step
began, plus a weighted sum of the latest slopes, plus fresh noise. All of them are k-diffusion's or come from programs
around it, in whose terms a noise level is sigma. How numbers become a table, is in `slope_table.py`. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Final, NamedTuple

__all__ = ["MAX_SLOPES", "PLANS", "Call"]

MAX_SLOPES: Final = 4
"""That one call reads, its own included."""


class Call(NamedTuple):
    """One call of the network."""

    sigma: float
    """The noise level at which it is asked."""
    weights: tuple[float, ...]
    """Of the latest slopes, this call's own last, in the next point."""
    ends_step: bool = True
    """Whether the next point begins another step."""
    noise: float = 0.0
    """Standard deviation of the fresh noise in the next point."""


Plan = Callable[[Sequence[float], float], Iterator[Call]]
"""Noise levels, falling, the last one 0, and the model's lowest -> all calls."""


def _dpmpp_2s_ancestral(levels: Sequence[float], _lowest: float) -> Iterator[Call]:
    """DPM-Solver++(2S) of Lu et al. (2022) down to a lower level, and noise back up; k-diffusion's arithmetic."""
    for now, later in pairwise(levels):
        up = min(later, later * math.sqrt(now**2 - later**2) / now)
        down = math.sqrt(later**2 - up**2)
        if down == 0:
            yield Call(now, (-now,))
            continue
        middle = math.sqrt(now * down)
        share = 1 - down / now
        yield Call(now, (middle - now,), ends_step=False)
        yield Call(middle, (share * (middle - now), -share * middle), noise=up)


def _heunpp2(levels: Sequence[float], _lowest: float) -> Iterator[Call]:
    """Heun with a third slope, from the level after the next; later slopes count less as the levels fall."""
    for index, (now, later) in enumerate(pairwise(levels)):
        change, highest = later - now, levels[0]
        if later == 0:
            yield Call(now, (change,))
            continue
        yield Call(now, (change,), ends_step=False)
        after = levels[index + 2]
        if after == 0:
            second = later / (2 * highest)
            yield Call(later, ((1 - second) * change, second * change))
            continue
        second, third = later / (3 * highest), after / (3 * highest)
        yield Call(later, (change, after - later), ends_step=False)
        yield Call(after, ((1 - second - third) * change, second * change, third * change))


_ADAMS_BASHFORTH: Final = ((1.0,), (-1 / 2, 3 / 2), (5 / 12, -16 / 12, 23 / 12), (-9 / 24, 37 / 24, -59 / 24, 55 / 24))


def _ipndm(levels: Sequence[float], _lowest: float) -> Iterator[Call]:
    """Adams-Bashforth of up to fourth order as if all steps were as long (Zhang and Chen, 2022)."""
    for index, (now, later) in enumerate(pairwise(levels)):
        weights = _ADAMS_BASHFORTH[min(index, 3)] if later else (1.0,)
        yield Call(now, tuple((later - now) * weight for weight in weights))


def _ipndm_v(levels: Sequence[float], _lowest: float) -> Iterator[Call]:
    """Adams-Bashforth for the steps as they are, with the coefficients of diff-sampler (Zhou et al., 2024)."""
    changes = [later - now for now, later in pairwise(levels)]
    for index, (now, later) in enumerate(pairwise(levels)):
        # The newest step first.
        lengths = changes[max(0, index - 3) : index + 1][::-1] if later else changes[index : index + 1]
        yield Call(now, tuple(lengths[0] * weight for weight in _variable_weights(*lengths)))


def _variable_weights(h: float, h1: float = 0.0, h2: float = 0.0, h3: float = 0.0) -> tuple[float, ...]:
    """Of the slopes, the newest last; a length is 0 where there was no such step.

    The sources group the first factor of `third` otherwise than the derivation does. Pictures are compared with theirs.
    """
    if not h1:
        return (1.0,)
    own, last = (2 + h / h1) / 2, -(h / h1) / 2
    if not h2:
        return last, own
    third = (1 - h / (3 * (h + h1)) * (h * (h + h1)) / (h1 * (h1 + h2))) / 2
    own, last, before = own + third, last - (1 + h1 / h2) * third, third * h1 / h2
    if not h3:
        return before, last, own
    fourth = (1 - h / (3 * (h + h1))) / 2 + (1 - h / (2 * (h + h1))) * h / (6 * (h + h1 + h2))
    fourth *= h * (h + h1) * (h + h1 + h2) / (h1 * (h1 + h2) * (h1 + h2 + h3))
    ratio = h1 * (h1 + h2) / (h2 * (h2 + h3))
    own += fourth
    last -= (1 + h1 / h2 + ratio) * fourth
    before += (h1 / h2 + ratio * (1 + h2 / h3)) * fourth
    return -fourth * ratio * h1 / h2, before, last, own


def _dpm_fast(levels: Sequence[float], lowest: float) -> Iterator[Call]:
    """DPM-Solver of Lu et al. (2022) in as many calls as there are levels: steps of third order, then lower ones.

    Of the levels it reads only the first: its steps are equally long in the logarithm, down to the model's lowest.
    """
    num_calls = len(levels) - 1
    num_steps = num_calls // 3 + 1
    rest = num_calls % 3
    orders = [3] * (num_steps - 1) + [rest] if rest else [3] * (num_steps - 2) + [2, 1]
    begin, end = -math.log(levels[0]), -math.log(lowest)
    times = [begin + (end - begin) * index / num_steps for index in range(num_steps + 1)]
    for order, (now, later) in zip(orders, pairwise(times), strict=True):
        h = later - now
        whole = -math.exp(-later) * math.expm1(h)
        if order == 1:
            yield Call(math.exp(-now), (whole,))
            continue
        first = math.exp(-now - h / order)
        yield Call(math.exp(-now), (-first * math.expm1(h / order),), ends_step=False)
        if order == 2:
            yield Call(first, (0.0, whole))
            continue
        second, reach = math.exp(-now - 2 * h / 3), 2 * h / 3
        bend = -2 * second * (math.expm1(reach) / reach - 1)
        yield Call(first, (-second * math.expm1(reach) - bend, bend), ends_step=False)
        bend = -1.5 * math.exp(-later) * (math.expm1(h) / h - 1)
        yield Call(second, (whole - bend, 0.0, bend))


_RESTART_LOW: Final = 0.1
_RESTART_HIGH: Final = 2.0


def _restart(levels: Sequence[float], _lowest: float) -> Iterator[Call]:
    """Heun that goes back up to sigma 2 by fresh noise, once or twice (Xu et al., 2023); A1111's choice of steps.

    But it never goes back up from level 0, as A1111 does where that is nearest to 0.1: model calls are priced by the
    number of steps alone.
    """
    steps = list(_restart_steps(levels))
    for (now, later), following in zip(steps, [*(now for now, _ in steps[1:]), 0.0], strict=True):
        change = later - now
        if later == 0:
            yield Call(now, (change,))
            continue
        yield Call(now, (change,), ends_step=False)
        yield Call(later, (change / 2, change / 2), noise=math.sqrt(max(following**2 - later**2, 0.0)))


def _restart_steps(levels: Sequence[float]) -> Iterator[tuple[float, float]]:
    num_steps = len(levels) - 1
    count, times = (num_steps // 4, 2) if num_steps >= 36 else (9, 1) if num_steps >= 20 else (0, 0)
    if not times:
        yield from pairwise(levels)
        return
    once = [*_karras(num_steps - count * times, levels[-2], levels[0]), 0.0]
    low, high = (
        min(range(len(once) - 1), key=lambda index: abs(once[index] - sigma)) for sigma in (_RESTART_LOW, _RESTART_HIGH)
    )
    if high >= low:  # the journey begins below all this
        yield from pairwise(levels)
        return
    yield from pairwise(once[: low + 1])
    again = _karras(count + 1, once[low], once[high])
    for _ in range(times):
        yield from pairwise(again)
    yield from pairwise(once[low:])


def _karras(count: int, lowest: float, highest: float, rho: float = 7.0) -> list[float]:
    """Noise levels of Karras et al. (2022), equation 5, without the 0 at the end."""
    begin, end = highest ** (1 / rho), lowest ** (1 / rho)
    return [(begin + index / (count - 1) * (end - begin)) ** rho for index in range(count)]


PLANS: Final[Mapping[str, Plan]] = MappingProxyType(
    {
        "DPM++ 2S a": _dpmpp_2s_ancestral,
        "HeunPP2": _heunpp2,
        "IPNDM": _ipndm,
        "IPNDM V": _ipndm_v,
        "DPM fast": _dpm_fast,
        "Restart": _restart,
    }
)
"""By our names of the samplers."""
