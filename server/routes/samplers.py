"""`GET /v1/samplers`: every sampler, by every name, with what it can be combined with and what it costs."""

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
    """Other names that mean it; case, spaces, `_` and `-` do not matter. A schedule's name may follow any of them:
    `DPM++ 2M Karras`."""
    noise_schedules: list[str]
    """What `noise_schedule` may be with it."""
    is_default: bool
    is_stochastic: bool
    """Draws fresh noise while it steps."""
    default_eta: float | None
    """What `eta` is if it is left out; null where `eta` must be left out."""
    model_calls: int
    """Model calls for one picture of `num_inference_steps` steps."""
    model_calls_formula: str
    """The same for n steps."""
    diffusers_class: str
    """The scheduler of diffusers that its table is read from."""

    @classmethod
    def of(cls, sampler: Sampler, num_inference_steps: int, *, is_default: bool) -> SamplerInfo:
        """Tell what there is to know about a sampler."""
        return cls(
            name=sampler.name,
            aliases=list(sampler.aliases),
            noise_schedules=list(sampler.noise_schedules),
            is_default=is_default,
            is_stochastic=sampler.is_stochastic,
            default_eta=sampler.default_eta,
            model_calls=sampler.model_calls(num_inference_steps),
            model_calls_formula=sampler.calls,
            diffusers_class=sampler.scheduler_class,
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
    """Every sampler with its names, noise schedules and model calls for so many steps (left out: the default)."""
    steps = num_inference_steps or service.defaults.num_inference_steps
    return Samplers(
        num_inference_steps=steps,
        noise_schedules=list(NOISE_SCHEDULES),
        samplers=[
            SamplerInfo.of(sampler, steps, is_default=sampler.name == service.defaults.sampler)
            for sampler in SAMPLERS.values()
        ],
    )
