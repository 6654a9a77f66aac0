"""`/v1/keys`: the operator's own routes, for `python -m server keys` alone. Not in the OpenAPI document."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request

from server.access.caller import caller_of
from server.errors import OperatorOnlyError
from server.routes.dependencies import ServiceOf
from server.routes.strict_requests import StrictRoute
from server.schemas.keys import KeyList, KeyRequest, KeyRotation, KeyView, KeyWithText
from server.store.record import LOCAL_KEY

__all__ = ["router"]


async def _operator_only(request: Request) -> None:
    if not caller_of(request).is_operator:
        raise OperatorOnlyError("use `python -m server keys` on the server's machine")


router = APIRouter(
    route_class=StrictRoute, prefix="/v1/keys", include_in_schema=False, dependencies=[Depends(_operator_only)]
)

KeyId = Annotated[str, Path(pattern="^[0-9a-f]{12}$")]


@router.get("")
async def list_keys(service: ServiceOf) -> KeyList:
    """Every key that was ever made."""
    return KeyList(keys=[KeyView.of(key) for key in service.keys.all()])


@router.post("", status_code=201)
async def create(body: KeyRequest, service: ServiceOf) -> KeyWithText:
    """A new key, taken from now on."""
    expires_s = None if body.expires_days is None else body.expires_days * 86400
    key, text = await service.keys.create(body.name, body.scopes, expires_s=expires_s)
    if body.take_over_local:
        storage = service.generator.storage
        await storage.ask(storage.store.take_over(LOCAL_KEY, key.id))
    return KeyWithText.with_text(key, text)


@router.post("/{key_id}/rotate")
async def rotate(key_id: KeyId, rotation: KeyRotation, service: ServiceOf) -> KeyWithText:
    """The key with a new text."""
    return KeyWithText.with_text(*await service.keys.rotate(key_id, grace_s=rotation.grace_hours * 3600))


@router.post("/{key_id}/revoke")
async def revoke(key_id: KeyId, service: ServiceOf) -> KeyView:
    """The key, which is not taken any more, whether that is on the disk yet or not; if it is not, that is an error."""
    return KeyView.of(await service.keys.revoke(key_id))
