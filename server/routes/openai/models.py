"""`GET /v1/models`: the models that requests may name, as OpenAI lists models, with what each defaults to."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Path

from server.access.scopes import needs
from server.catalogue import ServedModel
from server.routes.compat.door import CompatRoute
from server.routes.dependencies import Service, ServiceOf
from server.routes.responses import problem, problems
from server.schemas.openai import ModelEntry, ModelList, check_model

__all__ = ["router"]

router = APIRouter(prefix="/v1", route_class=CompatRoute, tags=["OpenAI"], dependencies=[needs("read")])


@router.get("/models", summary="List models (OpenAI)", responses=problems(503))
async def models(service: ServiceOf) -> ModelList:
    """The default model, those of `MODELS_DIR`, and the names of `OPENAI_MODEL_ALIASES`, which mean the default one."""
    catalogue = service.catalogue
    aliases = service.settings.openai_model_aliases if "openai" in service.settings.compat_apis else ()
    entries = [_entry(model.name, model, service) for model in catalogue.models]
    return ModelList(data=[*entries, *(_entry(name, catalogue.default, service) for name in aliases)])


@router.get(
    "/models/{model_id:path}",
    summary="Show a model (OpenAI)",
    responses={**problems(503, 400), 404: problem("No such model")},
)
async def model(model_id: Annotated[str, Path(max_length=200)], service: ServiceOf) -> ModelEntry:
    """A model by any name that a request may use."""
    models = {model.name: model for model in service.catalogue.models}
    check_model(model_id, service.settings.model_name, models)
    return _entry(model_id, models.get(model_id, service.catalogue.default), service)


def _entry(name: str, model: ServedModel, service: Service) -> ModelEntry:
    defaults = model.defaults
    return ModelEntry(
        id=name,
        created=int(time.time() - time.monotonic() + service.started_at),
        family=model.family,
        is_default=model is service.catalogue.default,
        width=defaults.width,
        height=defaults.height,
        size_multiple=defaults.pixels_per_latent,
        num_inference_steps=defaults.num_inference_steps,
        guidance_scale=defaults.guidance_scale,
        sampler=defaults.sampler,
        noise_schedule=defaults.noise_schedule,
        embeddings=[inversion.name for inversion in service.catalogue.inversions_of(model)],
    )
