"""The JSON of `POST /v1/upscale`: a picture, and how much larger it is to be."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from engine.errors import InvalidParamsError
from engine.params import LIMITS, GenerationParams
from engine.picture_params import Upscaler
from server.picture_info.file_info import ImageMetadata
from server.schemas.generation import MAX_USER_CHARACTERS, Defaults, OutputFormat
from server.schemas.picture_request import input_image
from server.schemas.pictures import Picture
from server.store.input_files import UploadedPicture

__all__ = ["UpscaleRequest"]


class UpscaleRequest(BaseModel):
    """A picture to enlarge. Nothing is drawn, so no prompt is asked for."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    image: Picture
    """A PNG, JPEG or WebP file in base64 or as a `data:` URL, never an address; or a file `image` in a form."""
    scale: float = Field(default=2.0, ge=1, le=4, allow_inf_nan=False)
    """How much larger; the result may be 4096 pixels wide and high."""
    upscaler: Upscaler = "lanczos"
    output_format: OutputFormat | None = None
    """File format. Left out, PNG."""
    image_metadata: ImageMetadata | None = None
    """`none` leaves out of the file how the picture was drawn, and that a model drew it; left out, `full`."""
    user: str | None = Field(default=None, max_length=MAX_USER_CHARACTERS)
    """On whose behalf: any opaque name. Kept out of logs; does not change the picture."""

    @property
    def pictures(self) -> tuple[UploadedPicture, ...]:
        """Those that came with the request."""
        return (self.image,)

    def to_params(self, defaults: Defaults) -> GenerationParams:
        """As a job.

        Raises:
            InvalidParamsError: the result would be too large.
        """
        width, height = int(self.image.width * self.scale), int(self.image.height * self.scale)
        if max(width, height) > LIMITS.max_image_size:
            rule = f"must leave the result at most {LIMITS.max_image_size} pixels wide and high, not {width}x{height}"
            raise InvalidParamsError("scale", rule, self.scale)
        return GenerationParams(
            prompt="",
            num_inference_steps=defaults.num_inference_steps,
            guidance_scale=defaults.guidance_scale,
            width=width,
            height=height,
            seed=0,
            sampler=defaults.sampler,
            noise_schedule=defaults.noise_schedule,
            image=input_image(self.image),
            upscaler=self.upscaler,
        )
