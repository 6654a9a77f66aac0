"""AUTOMATIC1111's names of samplers and schedulers, and what they mean here.

Source: `modules/sd_samplers_kdiffusion.py`, `sd_samplers_timesteps.py` and `sd_schedulers.py` of stable-diffusion-webui
1.10; HeunPP2 and IPNDM are Forge's. Only those that draw here are listed; others are refused by name, never replaced.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from engine.errors import InvalidParamsError
from engine.samplers import SAMPLERS, resolve_sampler

__all__ = ["SAMPLER_LABELS", "SCHEDULER_LABELS", "SamplerLabel", "label_of", "sampler_of"]


class SamplerLabel(NamedTuple):
    """A sampler as A1111 names it."""

    label: str
    ours: str
    """Its name here."""
    alias: str
    automatic: str = "default"
    """Its noise schedule where nothing is said."""


SAMPLER_LABELS: Final = tuple(
    label
    for label in (
        SamplerLabel("DPM++ 2M", "DPMSolver++", "k_dpmpp_2m", "karras"),
        SamplerLabel("DPM++ SDE", "DPM++ SDE", "k_dpmpp_sde", "karras"),
        SamplerLabel("DPM++ 2M SDE", "DPM++ 2M SDE", "k_dpmpp_2m_sde", "exponential"),
        SamplerLabel("DPM++ 2M SDE Heun", "DPM++ 2M SDE Heun", "k_dpmpp_2m_sde_heun", "exponential"),
        SamplerLabel("DPM++ 2S a", "DPM++ 2S a", "k_dpmpp_2s_a", "karras"),
        SamplerLabel("DPM++ 3M SDE", "DPM++ 3M SDE", "k_dpmpp_3m_sde", "exponential"),
        SamplerLabel("Euler a", "Euler a", "k_euler_a"),
        SamplerLabel("Euler", "Euler", "k_euler"),
        SamplerLabel("LMS", "LMS", "k_lms"),
        SamplerLabel("Heun", "Heun", "k_heun"),
        SamplerLabel("DPM2", "DPM2", "k_dpm_2", "karras"),
        SamplerLabel("DPM2 a", "DPM2 a", "k_dpm_2_a", "karras"),
        SamplerLabel("DPM fast", "DPM fast", "k_dpm_fast"),
        SamplerLabel("Restart", "Restart", "restart", "karras"),
        SamplerLabel("HeunPP2", "HeunPP2", "heunpp2"),
        SamplerLabel("IPNDM", "IPNDM", "ipndm"),
        SamplerLabel("IPNDM_V", "IPNDM V", "ipndm_v"),
        SamplerLabel("DDIM", "DDIM", "ddim"),
        SamplerLabel("PLMS", "PNDM", "plms"),
        SamplerLabel("UniPC", "UniPC", "unipc"),
        SamplerLabel("LCM", "LCM", "k_lcm"),
        SamplerLabel("DEIS", "DEIS", "deis"),
    )
    if label.ours in SAMPLERS
)
SCHEDULER_LABELS: Final[Mapping[str, tuple[str, str | None]]] = MappingProxyType(
    {
        "automatic": ("Automatic", None),
        "karras": ("Karras", "karras"),
        "exponential": ("Exponential", "exponential"),
        "beta": ("Beta", "beta"),
        "align_your_steps": ("Align Your Steps", "ays"),
        "uniform": ("Uniform", "linspace"),
        "normal": ("Normal", "linspace"),
        "sgm_uniform": ("SGM Uniform", "trailing"),
        "simple": ("Simple", "trailing"),
        "ddim": ("DDIM", "leading"),
    }
)
"""Name -> label, and the noise schedule here; None: the sampler's own."""


def _key(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).casefold()


_BY_KEY: Final = {
    _key(name): label for label in SAMPLER_LABELS for name in (label.label, label.alias, label.alias.removeprefix("k_"))
}
_SCHEDULERS_BY_KEY: Final = {
    _key(name): ours for theirs, (label, ours) in SCHEDULER_LABELS.items() for name in (theirs, label)
} | {"ays": "ays"}


def sampler_of(name: str, scheduler: str | None) -> tuple[str, str]:
    """Our names of a sampler and a noise schedule.

    Args:
        name: a label, also an old one with its scheduler (`DPM++ 2M Karras`), or an alias.
        scheduler: its name or label; None is the label's, else the sampler's own.

    Raises:
        InvalidParamsError: one is not known, or they do not go together.
    """
    label, suffix = _split(name)
    wanted = suffix
    if scheduler is not None:
        key = _key(scheduler)
        if key not in _SCHEDULERS_BY_KEY:
            choices = ", ".join(theirs for theirs, _ in SCHEDULER_LABELS.values())
            raise InvalidParamsError("scheduler", f"must be one of {choices}", scheduler)
        wanted = _SCHEDULERS_BY_KEY[key] or suffix
    sampler, noise_schedule = resolve_sampler(label.ours, wanted or label.automatic)
    return sampler.name, noise_schedule


def label_of(sampler: str) -> str:
    """A1111's label of our sampler; our own name where it has none."""
    return next((label.label for label in SAMPLER_LABELS if label.ours == sampler), sampler)


def _split(name: str) -> tuple[SamplerLabel, str | None]:
    key = _key(name)
    if key in _BY_KEY:
        return _BY_KEY[key], None
    for suffix, ours in _SCHEDULERS_BY_KEY.items():
        if ours is not None and key.endswith(suffix) and key.removesuffix(suffix) in _BY_KEY:
            return _BY_KEY[key.removesuffix(suffix)], ours
    try:  # a sampler that only this server has
        sampler, noise_schedule = resolve_sampler(name)
    except InvalidParamsError:
        choices = ", ".join(label.label for label in SAMPLER_LABELS)
        raise InvalidParamsError("sampler_name", f"must be one of {choices}", name) from None
    return SamplerLabel(sampler.name, sampler.name, sampler.name, noise_schedule), None
