"""`GET /v1/images/files/...`: a picture by its signed address, without a key."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from server.routes.compat.door import CompatRoute
from server.routes.dependencies import ServiceOf
from server.routes.jobs import JobId
from server.routes.responses import PICTURE_FILES, problems

__all__ = ["router"]

router = APIRouter(prefix="/v1/images/files", route_class=CompatRoute, tags=["OpenAI"])


@router.get(
    "/{job_id}/{index}/{expires}/{signature}/{name}",
    summary="Fetch a picture by its signed address",
    response_class=Response,
    responses={200: {"description": "The file", "content": PICTURE_FILES}, **problems(503, 400, 404, 409, 410)},
)
async def file(
    job_id: JobId,
    index: Annotated[int, Path(ge=0, le=1000)],
    expires: Annotated[int, Path(ge=0, le=2**40)],
    signature: Annotated[str, Path(pattern="^[0-9a-f]{64}$")],
    name: Annotated[str, Path(max_length=64, description="Any; for programs")],  # noqa: ARG001 -- a part of the path
    service: ServiceOf,
) -> Response:
    """The file, as answered with `url` for an hour."""
    service.signed_urls.check(job_id, index, expires, signature)
    record = await service.generator.find(job_id, None)
    stored, data = await service.generator.storage.image(record, index)
    return Response(data, media_type=stored.media_type, headers={"Cache-Control": "private, max-age=3600"})
