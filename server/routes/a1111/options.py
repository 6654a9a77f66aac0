"""`/sdapi/v1/options`: settings that this API keeps of each key, the model among them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Request

from engine.params import LIMITS
from server.access.caller import caller_of
from server.access.scopes import needs
from server.catalogue import Catalogue, ServedModel
from server.routes.compat.door import DOOR, CompatRoute
from server.routes.dependencies import Service, ServiceOf
from server.routes.responses import problems
from server.schemas.a1111 import refuse
from server.store.options_table import Option

__all__ = ["chosen_model", "model_of", "options_of", "router"]

router = APIRouter(prefix="/sdapi/v1", route_class=CompatRoute, tags=["AUTOMATIC1111"], dependencies=DOOR)

_CHECKPOINT: Final = "sd_model_checkpoint"
_DEFAULTS: Final[Mapping[str, Option]] = {
    "samples_format": "png",
    "CLIP_stop_at_last_layers": 1,
    "sd_vae": "Automatic",
    "send_seed": True,
    "eta_ddim": 0.0,
    "img2img_fix_steps": False,
    "return_grid": False,
    "show_progress_every_n_steps": 10,
}
_FORMATS: Final = re.compile(r"png|jpe?g|webp", re.IGNORECASE)
_NO_VAE: Final = re.compile(r"automatic|none|", re.IGNORECASE)


def model_of(settings: Mapping[str, Any], catalogue: Catalogue) -> ServedModel:
    """The model that `sd_model_checkpoint` names; the default one, if it names none.

    Args:
        settings: options, or those that a request overrides.
        catalogue: the models.

    Raises:
        InvalidParamsError: there is no such model.
    """
    wanted = str(settings.get(_CHECKPOINT) or catalogue.default.name)
    model = catalogue.named(wanted)
    if model is None:
        raise refuse(_CHECKPOINT, "must be a title that GET /sdapi/v1/sd-models lists", wanted)
    return model


async def options_of(service: Service, key_id: str) -> Mapping[str, Option]:
    """What a key has set, read from the disk when it is first asked for.

    Raises:
        StoreTroubleError: it cannot be read.
    """
    session, storage = service.a1111.of(key_id), service.generator.storage
    if session.options is None:
        found = await storage.ask(storage.store.options_of(key_id))
        if session.options is None:  # else it was set meanwhile
            session.options = found
    return session.options


async def chosen_model(service: Service, key_id: str) -> ServedModel:
    """The model that a key has chosen; the default one, if it chose none, or one that is not listed any more.

    Raises:
        StoreTroubleError: its choice cannot be read.
    """
    kept = await options_of(service, key_id)
    return service.catalogue.named(str(kept.get(_CHECKPOINT))) or service.catalogue.default


@router.get("/options", summary="Options (AUTOMATIC1111)", responses=problems(503), dependencies=[needs("read")])
async def options(request: Request, service: ServiceOf) -> dict[str, Any]:
    """This key's."""
    kept = await options_of(service, caller_of(request).key_id)
    return {_CHECKPOINT: service.catalogue.default.name, "sd_checkpoint_hash": "", **_DEFAULTS, **kept}


@router.post(
    "/options",
    summary="Set options (AUTOMATIC1111)",
    responses=problems(503, 400, 413, 415, 422),
    dependencies=[needs("generate")],
)
async def set_options(request: Request, body: Annotated[dict[str, Any], Body()], service: ServiceOf) -> None:
    """Any part of them, or all; those that are not known are ignored. A restart keeps them."""
    changes = {name: _checked(name, body[name]) for name in _DEFAULTS if body.get(name) is not None}
    if body.get(_CHECKPOINT) is not None:
        changes[_CHECKPOINT] = model_of(body, service.catalogue).name
    if changes:
        key_id, storage = caller_of(request).key_id, service.generator.storage
        kept = await storage.ask(storage.store.put_options(key_id, changes), timeout_s=None)
        service.a1111.of(key_id).options = kept


def _checked(name: str, value: object) -> Option:
    """A value that may be kept.

    Raises:
        InvalidParamsError: it is of another kind, or out of range.
    """
    default = _DEFAULTS[name]
    match name, value:
        case "samples_format", str() if _FORMATS.fullmatch(value):
            return value
        case "samples_format", _:
            raise refuse(name, "must be png, jpg or webp", None)
        case "sd_vae", _:
            if not _NO_VAE.fullmatch(str(value)):
                raise refuse(name, "must be Automatic: the model's own is used", None)
            return "Automatic"
        case "CLIP_stop_at_last_layers", int() | float() if 1 <= value <= LIMITS.max_clip_skip + 1:
            return int(value)
        case "CLIP_stop_at_last_layers", _:
            raise refuse(name, f"must be an integer from 1 to {LIMITS.max_clip_skip + 1}", None)
        case "eta_ddim", int() | float() if 0 <= value <= 1:
            return float(value)
        case _, bool() if isinstance(default, bool):
            return value
        case "show_progress_every_n_steps", int() if abs(value) < 2**31:
            return int(value)
    raise refuse(name, f"must be like {default!r}", None)
