"""What there is to choose from, as AUTOMATIC1111's API lists it. Only what draws here is listed."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Request

from server.access.caller import caller_of
from server.access.scopes import needs
from server.routes.a1111.options import chosen_model
from server.routes.compat.door import DOOR, CompatRoute
from server.routes.dependencies import ServiceOf
from server.routes.responses import problems
from server.schemas.a1111_names import SAMPLER_LABELS, SCHEDULER_LABELS

__all__ = ["acts", "router"]

router = APIRouter(
    prefix="/sdapi/v1", route_class=CompatRoute, tags=["AUTOMATIC1111"], dependencies=[*DOOR, needs("read")]
)
acts = APIRouter(
    prefix="/sdapi/v1", route_class=CompatRoute, tags=["AUTOMATIC1111"], dependencies=[*DOOR, needs("generate")]
)

_EMPTY: Final = (
    *("sd-vae", "loras", "script-info", "hypernetworks", "face-restorers", "realesrgan-models", "prompt-styles"),
    *("extensions", "sd-modules"),
)
_IDLE: Final = (
    "unload-checkpoint",
    "reload-checkpoint",
    "refresh-checkpoints",
    "refresh-vae",
    "refresh-loras",
    "refresh-embeddings",
)
"""Acts that have nothing to do here."""


@router.get("/sd-models", summary="Models (AUTOMATIC1111)", responses=problems(503))
async def sd_models(service: ServiceOf) -> list[dict[str, Any]]:
    """Those of `GET /v1/models`, the default one first. Their hashes are not known here, and none are made up."""
    titles = [model.name for model in service.catalogue.models]
    unknown = {"hash": None, "sha256": None, "config": None}
    return [{"title": title, "model_name": title.rpartition("/")[2], "filename": title, **unknown} for title in titles]


@router.get("/samplers", summary="Samplers (AUTOMATIC1111)", responses=problems(503))
async def samplers() -> list[dict[str, Any]]:
    """By A1111's labels."""
    return [
        {"name": label.label, "aliases": [label.alias], "options": {"scheduler": label.automatic}}
        for label in SAMPLER_LABELS
    ]


@router.get("/schedulers", summary="Schedulers (AUTOMATIC1111)", responses=problems(503))
async def schedulers() -> list[dict[str, Any]]:
    """Not every one goes with every sampler; a pair that does not is refused."""
    return [
        {
            "name": name,
            "label": label,
            "aliases": None,
            "default_rho": 7.0 if name == "karras" else -1.0,
            "need_inner_model": False,
        }
        for name, (label, _) in SCHEDULER_LABELS.items()
    ]


@router.get("/upscalers", summary="Upscalers (AUTOMATIC1111)", responses=problems(503))
async def upscalers() -> list[dict[str, Any]]:
    """For hires fix and extras."""
    entry = {"model_name": None, "model_path": None, "model_url": None, "scale": 4}
    return [{"name": name, **entry} for name in ("None", "Lanczos")]


@router.get("/latent-upscale-modes", summary="Latent upscalers (AUTOMATIC1111)", responses=problems(503))
async def latent_upscale_modes() -> list[dict[str, Any]]:
    """For hires fix."""
    return [{"name": f"Latent{kind}"} for kind in ("", " (antialiased)", " (bicubic)", " (nearest)")]


@router.get("/embeddings", summary="Embeddings (AUTOMATIC1111)", responses=problems(503))
async def embeddings(request: Request, service: ServiceOf) -> dict[str, Any]:
    """The textual inversions of `EMBEDDINGS_DIR`; those that this key's model cannot use are skipped."""
    catalogue = service.catalogue
    usable = catalogue.inversions_of(await chosen_model(service, caller_of(request).key_id))
    listed: dict[str, dict[str, Any]] = {"loaded": {}, "skipped": {}}
    for inversion in catalogue.inversions:
        listed["loaded" if inversion in usable else "skipped"][inversion.name] = {
            "step": None,
            "sd_checkpoint": None,
            "sd_checkpoint_name": None,
            "shape": sum(inversion.widths),
            "vectors": inversion.num_vectors,
        }
    return listed


@router.get("/scripts", summary="Scripts (AUTOMATIC1111)", responses=problems(503))
async def scripts() -> dict[str, Any]:
    """None."""
    return {"txt2img": [], "img2img": []}


@router.get("/cmd-flags", summary="Flags (AUTOMATIC1111)", responses=problems(503))
async def cmd_flags() -> dict[str, Any]:
    """None."""
    return {}


@router.get("/memory", summary="Memory (AUTOMATIC1111)", responses=problems(503))
async def memory(service: ServiceOf) -> dict[str, Any]:
    """Of the device, where it has memory of its own; that of the machine is not shown."""
    device = service.generator.executor.vitals.device_memory
    cuda: dict[str, Any] = {"error": "unavailable"}
    if device is not None:
        used = device.total_bytes - device.free_bytes
        cuda = {"system": {"total": device.total_bytes, "free": device.free_bytes, "used": used}}
    return {"ram": {"free": 0, "used": 0, "total": 0}, "cuda": cuda}


async def _nothing() -> list[dict[str, Any]]:
    """None of these are here."""
    return []


async def _done() -> dict[str, Any]:
    """Nothing is to be done."""
    return {}


for _name in _EMPTY:
    router.get(f"/{_name}", summary=f"{_name} (AUTOMATIC1111)", responses=problems(503), name=_name)(_nothing)
for _name in _IDLE:
    acts.post(f"/{_name}", summary=f"{_name} (AUTOMATIC1111)", responses=problems(503), name=_name)(_done)
