"""What a caller may ask for: the arguments of `generate`, `submit` and `upscale`. The server checks their values."""

from __future__ import annotations

from typing import Literal, TypedDict

from semantic_bit_client.uploads import AnyPicture

__all__ = ["Drawing", "Expand", "Hires", "JobDrawing", "Upscaling"]


class Expand(TypedDict, total=False):
    """Pixels by which a picture grows at each side; multiples of the model's `size_multiple`."""

    left: int
    top: int
    right: int
    bottom: int


class Hires(TypedDict, total=False):
    """A second pass at a larger size: `scale`, or `width` and `height`. What is left out is as in the first pass."""

    scale: float
    """1 to 4."""
    width: int
    height: int
    upscaler: Literal["latent", "latent-antialiased", "latent-bicubic", "latent-nearest", "lanczos"]
    steps: int
    """Left out: half as many as in the first pass."""
    strength: float
    """How much is drawn anew; left out, 0.7, or 0.4 with `lanczos`."""
    prompt: str
    negative_prompt: str
    sampler: str
    noise_schedule: str
    guidance_scale: float


class Drawing(TypedDict, total=False):
    """How to draw, beside the prompt. What is left out, or None, is the server's default."""

    negative_prompt: str | None
    """What not to draw."""
    model: str | None
    """Which model draws: a name that `models()` lists. Its own defaults then apply."""
    num_inference_steps: int | None
    guidance_scale: float | None
    """How closely to follow the prompt; 1 or less is off, and then twice as fast."""
    height: int | None
    """Pixels; a multiple of the model's `size_multiple` (8 or 16)."""
    width: int | None
    """Pixels; a multiple of the model's `size_multiple` (8 or 16)."""
    seed: int | None
    """The same seed and settings give the same picture. Left out, the server draws one, and says which."""
    sampler: str | None
    """Any name or alias that `samplers()` lists."""
    noise_schedule: str | None
    eta: float | None
    """Share of fresh noise in every step, for the samplers that take it."""
    output_format: Literal["png", "webp", "jpeg"] | None
    prompt_syntax: Literal["plain", "weighted", "dynamic"] | None
    """How the prompts are read; the server's usual is AUTOMATIC1111's language, `weighted`."""
    emphasis: Literal["original", "no_norm", "none"] | None
    """What weights of words do."""
    clip_skip: int | None
    """Layers of the text encoder that are left out, from the end."""
    guidance_rescale: float | None
    """How far the contrast that guidance adds is taken back, 0 to 1."""
    guidance_start: float | None
    """Share of the steps before which there is no guidance."""
    guidance_end: float | None
    """Share of the steps after which there is none."""
    image: AnyPicture | None
    """Draw over this picture: a path, the bytes of a PNG, JPEG or WebP file, or a PIL picture."""
    strength: float | None
    """How much of `image` is drawn anew, 0 to 1."""
    resize: Literal["stretch", "crop", "fill"] | None
    """How `image` becomes `width` x `height`."""
    mask: AnyPicture | None
    """Change only what is white here; as large as `image`."""
    mask_invert: bool | None
    """Change what is black instead."""
    mask_blur: int | None
    """Pixels: how softly the new part passes into the old one."""
    mask_area: Literal["whole", "masked"] | None
    """`masked` draws only what surrounds the mask, at `width` x `height`, and puts it back."""
    mask_padding: int | None
    """Pixels around the mask that are drawn with it, with `mask_area="masked"`."""
    masked_content: Literal["original", "fill", "noise", "nothing"] | None
    """What the masked part begins with."""
    expand: Expand | None
    """Let `image` grow; excludes `mask`."""
    variation_seed: int | None
    """Turn the noise towards that of this seed."""
    variation_strength: float | None
    """How far, 0 to 1."""
    hires: Hires | None
    """Enlarge the picture and draw on; excludes `image`."""
    image_metadata: Literal["full", "none"] | None
    """`none` leaves out of the file how it was drawn."""
    engine_class: str | None
    """Only an engine of this class may draw, as `JobState.engine_class` names it: the same bytes again."""
    user: str | None
    """On whose behalf: any opaque name of at most 64 characters. Users of one key share it fairly."""


class JobDrawing(Drawing, total=False):
    """The same, for a job, which may be several pictures."""

    num_images: int | None
    """Pictures, with the seeds `seed`, `seed + 1`, ..."""


class Upscaling(TypedDict, total=False):
    """How to enlarge a picture. What is left out, or None, is the server's default."""

    scale: float | None
    """1 to 4; left out, 2."""
    upscaler: Literal["lanczos"] | None
    output_format: Literal["png", "webp", "jpeg"] | None
    image_metadata: Literal["full", "none"] | None
    user: str | None
