"""`GET /v1/samplers`: samplers, aliases, their noise schedules and model calls."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict

from engine.params import LIMITS
from engine.samplers import NOISE_SCHEDULES, SAMPLERS, Sampler
from server.access.scopes import needs
from server.routes.dependencies import ServiceOf

__all__ = ["router"]


class SamplerInfo(BaseModel):
    """One sampler."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: str
    aliases: list[str]
    """Aliases; case, spaces, `_` and `-` are ignored. A schedule's name may follow any of them:
    `DPM++ 2M Karras`."""
    noise_schedules: list[str]
    """Values of `noise_schedule` that it takes."""
    is_default: bool
    is_stochastic: bool
    """Adds fresh noise at each step."""
    default_eta: float | None
    """Default of `eta`; null where `eta` must be left out."""
    model_calls: int
    """Model calls for one picture of `num_inference_steps` steps."""
    model_calls_formula: str
    """The same for n steps."""
    diffusers_class: str | None
    """The scheduler of diffusers that it is equivalent to; null where diffusers has none."""

    @classmethod
    def of(cls, sampler: Sampler, num_inference_steps: int, *, is_default: bool) -> SamplerInfo:
        """The JSON view of a sampler."""
        return cls(
            name=sampler.name,
            aliases=list(sampler.aliases),
            noise_schedules=list(sampler.noise_schedules),
            is_default=is_default,
            is_stochastic=sampler.is_stochastic,
            default_eta=sampler.default_eta,
            model_calls=sampler.model_calls(num_inference_steps),
            model_calls_formula=sampler.calls,
            diffusers_class=None if sampler.is_own else sampler.scheduler_class,
        )


class Samplers(BaseModel):
    """The samplers, and the noise schedules they are combined with."""

    num_inference_steps: int
    noise_schedules: list[str]
    samplers: list[SamplerInfo]


router = APIRouter(prefix="/v1", tags=["samplers"])


@router.get("/samplers", summary="Samplers and noise schedules", dependencies=[needs("read")])
async def samplers(
    service: ServiceOf,
    num_inference_steps: Annotated[int | None, Query(ge=1, le=LIMITS.max_num_inference_steps)] = None,
) -> Samplers:
    """Every sampler: its names, noise schedules and the model calls it takes for a number of steps."""
    steps = num_inference_steps or service.defaults.num_inference_steps
    return Samplers(
        num_inference_steps=steps,
        noise_schedules=list(NOISE_SCHEDULES),
        samplers=[
            SamplerInfo.of(sampler, steps, is_default=sampler.name == service.defaults.sampler)
            for sampler in SAMPLERS.values()
        ],
    )
