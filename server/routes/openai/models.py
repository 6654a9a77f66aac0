"""`GET /v1/models`: the served model under each of its names, as OpenAI lists models."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Path

from server.access.scopes import needs
from server.routes.compat.door import CompatRoute
from server.routes.dependencies import Service, ServiceOf
from server.routes.responses import problem, problems
from server.schemas.openai import ModelEntry, ModelList, check_model

__all__ = ["router"]

router = APIRouter(prefix="/v1", route_class=CompatRoute, tags=["OpenAI"], dependencies=[needs("read")])


@router.get("/models", summary="List models (OpenAI)", responses=problems(503))
async def models(service: ServiceOf) -> ModelList:
    """The model, and the names of `OPENAI_MODEL_ALIASES`."""
    names = [service.settings.model_name, *service.settings.openai_model_aliases]
    return ModelList(data=[_entry(name, service) for name in names])


@router.get(
    "/models/{model_id:path}",
    summary="Show a model (OpenAI)",
    responses={**problems(503, 400), 404: problem("No such model")},
)
async def model(model_id: Annotated[str, Path(max_length=200)], service: ServiceOf) -> ModelEntry:
    """A model by any name that a request may use."""
    check_model(model_id, service.settings.model_name)
    return _entry(model_id, service)


def _entry(name: str, service: Service) -> ModelEntry:
    return ModelEntry(id=name, created=int(time.time() - time.monotonic() + service.started_at))
