"""`png-info` and the extras: reading a picture's settings, and enlarging pictures without drawing."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Request
from pydantic import BaseModel, ConfigDict, Field

from server.access.scopes import needs
from server.picture_info.grammar import parse
from server.routes.a1111.draw import ERRORS
from server.routes.compat.door import DOOR, CompatRoute
from server.routes.compat.drawing import draw, foreign_job
from server.routes.dependencies import Service, ServiceOf
from server.routes.responses import problems
from server.routes.upload_route import JSON, body_of, media_type_of
from server.schemas.a1111 import refuse
from server.schemas.pictures import Picture
from server.schemas.upscale import UpscaleRequest
from server.store.input_files import UploadedPicture
from server.worker.upload_messages import PictureKind

__all__ = ["infos", "router"]

_UPSCALERS: Final = frozenset({"none", "lanczos"})


class _InfoRoute(CompatRoute):
    """Takes a picture, of which only the text is read."""

    @property
    def picture_fields(self) -> Mapping[str, PictureKind]:
        """The picture."""
        return {"image": "picture"}


router = APIRouter(
    prefix="/sdapi/v1", route_class=CompatRoute, tags=["AUTOMATIC1111"], dependencies=[*DOOR, needs("generate")]
)
infos = APIRouter(
    prefix="/sdapi/v1", route_class=_InfoRoute, tags=["AUTOMATIC1111"], dependencies=[*DOOR, needs("generate")]
)


class _Extras(BaseModel):
    """How pictures are enlarged."""

    model_config = ConfigDict(extra="ignore")

    upscaler_1: str = Field(default="None", max_length=200)
    upscaling_resize: float = Field(default=2.0, ge=1, le=4)
    resize_mode: int = Field(default=0, ge=0, le=1)
    """0: by `upscaling_resize`; 1: to `upscaling_resize_w` x `upscaling_resize_h`."""
    upscaling_resize_w: int = Field(default=0, ge=0, le=4096)
    upscaling_resize_h: int = Field(default=0, ge=0, le=4096)
    upscaling_crop: bool = True

    def wish(self, image: UploadedPicture) -> UpscaleRequest:
        """The same in our words.

        Raises:
            InvalidParamsError: it cannot be done here.
        """
        name = self.upscaler_1.lower() or "none"
        if name not in _UPSCALERS:
            raise refuse("upscaler_1", "must be None or Lanczos", None)
        scale = self.upscaling_resize
        if self.resize_mode == 1:
            scales = {
                wanted / side
                for wanted, side in ((self.upscaling_resize_w, image.width), (self.upscaling_resize_h, image.height))
                if wanted
            }
            scale = max(scales, default=1.0)
            if len(scales) == 2 and abs(max(scales) - min(scales)) * max(image.width, image.height) > 1:
                raise refuse("upscaling_resize_w", "must be as large in proportion as upscaling_resize_h", None)
        if not 1 <= scale <= 4:
            raise refuse("upscaling_resize", "must make the picture 1 to 4 times as large", None)
        return UpscaleRequest(image=image, scale=1.0 if name == "none" else scale)


class SingleRequest(_Extras):
    """A picture to enlarge."""

    image: Picture


class _Named(BaseModel):
    model_config = ConfigDict(extra="ignore")

    data: Picture
    name: str = Field(default="", max_length=300)


class BatchRequest(_Extras):
    """Pictures to enlarge; at most six a request."""

    imageList: list[_Named] = Field(min_length=1, max_length=6)  # noqa: N815 -- A1111's name


@infos.post(
    "/png-info",
    summary="Read how a picture was drawn (AUTOMATIC1111)",
    responses=problems(503, 400, 413, 415, 422),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                JSON: {
                    "schema": {
                        "type": "object",
                        "properties": {"image": {"type": "string", "contentEncoding": "base64"}},
                        "required": ["image"],
                    }
                }
            },
        }
    },
)
async def png_info(request: Request, service: ServiceOf) -> dict[str, Any]:
    """The text in the picture's file, and its settings as texts."""
    media_type_of(request, (JSON,))
    reading = service.uploads.read_info(body_of(request), request.headers["content-type"])
    text = (await service.generator.storage.ask(reading, timeout_s=None)).text
    if not text:
        return {"info": "", "items": {}, "parameters": {}}
    found = parse(text)
    parameters = {"Prompt": found.prompt, "Negative prompt": found.negative_prompt, **dict(found.pairs)}
    size = parameters.pop("Size", "").split("x")
    if len(size) == 2:
        parameters |= {"Size-1": size[0], "Size-2": size[1]}
    return {"info": text, "items": {"parameters": text}, "parameters": parameters}


@router.post("/extra-single-image", summary="Enlarge a picture (AUTOMATIC1111)", responses=ERRORS)
async def extra_single_image(
    request: Request, body: Annotated[SingleRequest, Body()], service: ServiceOf
) -> dict[str, Any]:
    """By Lanczos, as a job like any other."""
    return {"image": await _enlarged(request, service, body.wish(body.image)), "html_info": ""}


@router.post("/extra-batch-images", summary="Enlarge pictures (AUTOMATIC1111)", responses=ERRORS)
async def extra_batch_images(
    request: Request, body: Annotated[BatchRequest, Body()], service: ServiceOf
) -> dict[str, Any]:
    """One job after the other."""
    wishes = [body.wish(entry.data) for entry in body.imageList]
    return {"images": [await _enlarged(request, service, wish) for wish in wishes], "html_info": ""}


async def _enlarged(request: Request, service: Service, wish: UpscaleRequest) -> str:
    new = foreign_job(request, service, wish, api="a1111", output_format="png")
    _, [image] = await draw(request, service, new, wish.pictures)
    return base64.b64encode(image.data).decode()
