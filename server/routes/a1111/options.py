"""`/sdapi/v1/options`: settings that this API remembers of each key, for as long as the server runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Request

from server.access.caller import caller_of
from server.access.scopes import needs
from server.routes.compat.door import DOOR, CompatRoute
from server.routes.dependencies import Service, ServiceOf
from server.routes.responses import problems
from server.schemas.a1111 import refuse

__all__ = ["check_checkpoint", "router", "title_of"]

router = APIRouter(prefix="/sdapi/v1", route_class=CompatRoute, tags=["AUTOMATIC1111"], dependencies=DOOR)

_DEFAULTS: Final[dict[str, Any]] = {
    "sd_checkpoint_hash": "",
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


def title_of(service: Service) -> str:
    """The model as `sd-models` lists it."""
    return service.settings.model_name


def check_checkpoint(settings: Mapping[str, Any], service: Service) -> None:
    """Refuse another model than the one that is served.

    Raises:
        InvalidParamsError: it is asked for.
    """
    title = title_of(service)
    wanted = settings.get("sd_model_checkpoint")
    if wanted and str(wanted) not in {title, title.rpartition("/")[2]}:
        raise refuse("sd_model_checkpoint", f"must be {title}, the only model", None)


@router.get("/options", summary="Options (AUTOMATIC1111)", responses=problems(503), dependencies=[needs("read")])
async def options(request: Request, service: ServiceOf) -> dict[str, Any]:
    """This key's."""
    session = service.a1111.of(caller_of(request).key_id)
    return {"sd_model_checkpoint": title_of(service), **_DEFAULTS, **session.options}


@router.post(
    "/options",
    summary="Set options (AUTOMATIC1111)",
    responses=problems(503, 400, 413, 415, 422),
    dependencies=[needs("generate")],
)
async def set_options(request: Request, body: Annotated[dict[str, Any], Body()], service: ServiceOf) -> None:
    """Any part of them, or all; those that are not known are ignored."""
    check_checkpoint(body, service)
    if not _FORMATS.fullmatch(str(body.get("samples_format", "png"))):
        raise refuse("samples_format", "must be png, jpg or webp", None)
    changes = {name: body[name] for name in _DEFAULTS if name in body}
    for name, value in changes.items():
        if type(value) is not type(_DEFAULTS[name]) and not isinstance(value, int | float):
            raise refuse(name, f"must be like {_DEFAULTS[name]!r}", None)
        if isinstance(value, str) and len(value) > 100:
            raise refuse(name, "must have at most 100 characters", None)
    service.a1111.of(caller_of(request).key_id).options.update(changes)
