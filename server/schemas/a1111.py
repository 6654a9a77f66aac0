"""The JSON of AUTOMATIC1111's `txt2img` and `img2img`, and the same request in our words.

Lenient, since every caller sends fields that mean nothing here: unknown ones are ignored and listed. What would change
the picture and cannot be done is refused by name. Source: `modules/api/models.py` of stable-diffusion-webui 1.10, whose
defaults these are, but for `steps`, `cfg_scale` and the size, which are the server's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, model_validator

from engine.errors import InvalidParamsError
from engine.params import LIMITS
from engine.samplers import SAMPLERS
from server.picture_info.infotext import read_info
from server.schemas.a1111_names import sampler_of
from server.schemas.generation import Defaults, ForeignRequest
from server.schemas.pictures import EitherMask, Picture

__all__ = ["DrawRequest", "Img2ImgRequest", "Txt2ImgRequest", "refuse"]

_Text = Annotated[str, Field(max_length=LIMITS.max_prompt_characters)]
_Name = Annotated[str, Field(max_length=200)]
_Number = Annotated[float, Field(allow_inf_nan=False)]

_MAX_PICTURES: Final = LIMITS.max_num_images
_LORA: Final = re.compile(r"<(lora|lyco|hypernet):([^:>]{0,80})", re.IGNORECASE)
_FORMATS: Final[Mapping[str, str]] = MappingProxyType({"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "webp": "webp"})
_UPSCALERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "latent": "latent",
        "latent (antialiased)": "latent-antialiased",
        "latent (bicubic)": "latent-bicubic",
        "latent (nearest)": "latent-nearest",
        "lanczos": "lanczos",
        "none": "lanczos",
    }
)
_CONTENTS: Final = ("fill", "original", "noise", "nothing")
_RESIZES: Final = ("stretch", "crop", "fill")
_SAME: Final = frozenset({"", "none", "use same sampler", "use same scheduler", "use same checkpoint", "automatic"})
_KNOWN_SETTINGS: Final = frozenset(
    {"sd_model_checkpoint", "samples_format", "CLIP_stop_at_last_layers", "sd_vae", "eta_ddim"}
)
_WITHOUT_EFFECT: Final = ("restore_faces", "tiling", "save_images", "s_churn", "s_tmin", "s_tmax", "do_not_save_grid")
"""Fields that are ignored here, and said to be where they are switched on."""


class DrawRequest(BaseModel):
    """What both requests have."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True, protected_namespaces=())

    prompt: _Text = ""
    negative_prompt: _Text = ""
    seed: int = -1
    """Less than 0: a random one, which `info` names."""
    subseed: int = -1
    subseed_strength: float = Field(default=0.0, ge=0, le=1)
    seed_resize_from_h: int = -1
    seed_resize_from_w: int = -1
    steps: int | None = None
    cfg_scale: _Number | None = None
    width: int | None = None
    height: int | None = None
    batch_size: int = Field(default=1, ge=1, le=_MAX_PICTURES)
    n_iter: int = Field(default=1, ge=1, le=_MAX_PICTURES)
    """`batch_size` times `n_iter` pictures, at most 64, are one job."""
    sampler_name: _Name | None = None
    sampler_index: _Name | None = None
    """The older name of `sampler_name`."""
    scheduler: _Name | None = None
    denoising_strength: float = Field(default=0.75, ge=0, le=1)
    eta: float | None = Field(default=None, ge=0, le=1)
    styles: list[_Name] = Field(default_factory=list)
    override_settings: dict[str, Any] = Field(default_factory=dict)
    override_settings_restore_afterwards: bool = True
    send_images: bool = True
    save_images: bool = False
    do_not_save_grid: bool = False
    do_not_save_samples: bool = False
    restore_faces: bool = False
    tiling: bool = False
    s_churn: float | None = None
    s_tmin: float | None = None
    s_tmax: float | None = None
    s_noise: float | None = None
    script_name: _Name | None = None
    script_args: list[Any] = Field(default_factory=list)
    alwayson_scripts: dict[str, Any] = Field(default_factory=dict)
    refiner_checkpoint: _Name | None = None
    refiner_switch_at: float | None = None
    infotext: str | None = Field(default=None, max_length=2**16)
    force_task_id: _Name | None = None

    @model_validator(mode="before")
    @classmethod
    def _leave_out_nothing(cls, values: object) -> object:
        """Null is the same as leaving a field out, and so is an empty text where a number belongs."""
        if not isinstance(values, dict):
            return values
        return {name: value for name, value in values.items() if value is not None and value != ""}

    @property
    def num_images(self) -> int:
        """Pictures of the job."""
        return self.batch_size * self.n_iter

    def ignored(self) -> list[str]:
        """Names of what was sent and has no effect here."""
        names = [name for name in _WITHOUT_EFFECT if getattr(self, name)]
        unknown = [name for name in self.model_extra or {} if re.fullmatch(r"\w{1,31}", name, re.ASCII)]
        settings = [f"override_settings.{name}" for name in self.override_settings if name not in _KNOWN_SETTINGS]
        plain = [name for name in settings if re.fullmatch(r"[\w.]{1,60}", name, re.ASCII)]
        if self.override_settings and not self.override_settings_restore_afterwards:
            names.append("override_settings_restore_afterwards")
        return [*names, *unknown[:20], *plain[:20]]

    def output_format(self, settings: Mapping[str, Any]) -> str:
        """Of the pictures' files.

        Args:
            settings: the caller's options, which the request may override.
        """
        wanted = str({**settings, **self.override_settings}.get("samples_format", "png")).lower()
        if wanted not in _FORMATS:
            raise refuse("samples_format", f"must be one of {', '.join(_FORMATS)}", wanted)
        return _FORMATS[wanted]

    def wish(self, defaults: Defaults, settings: Mapping[str, Any]) -> ForeignRequest:
        """The same in our words.

        Args:
            defaults: the server's.
            settings: the caller's options, which the request may override.

        Raises:
            InvalidParamsError: what is asked for cannot be done here.
        """
        self._refuse_what_cannot_be_done()
        settings = {**settings, **self.override_settings}
        wishes = {**self._from_infotext(), **self._drawn(defaults), **self._set(settings)}
        eta = self.eta if self.eta is not None else settings.get("eta_ddim")
        if eta is not None and SAMPLERS[wishes.get("sampler", defaults.sampler)].default_eta is not None:
            wishes["eta"] = eta
        return ForeignRequest.checked({name: value for name, value in wishes.items() if value is not None})

    def _drawn(self, defaults: Defaults) -> dict[str, Any]:
        wishes: dict[str, Any] = {"prompt": self.prompt, "negative_prompt": self.negative_prompt}
        if self.infotext is not None:
            wishes = {name: text for name, text in wishes.items() if text}
        wishes |= {
            "seed": self.seed if self.seed >= 0 else None,
            "num_inference_steps": self.steps,
            "guidance_scale": self.cfg_scale,
            "width": self.width,
            "height": self.height,
            "num_images": self.num_images,
        }
        name = self.sampler_name or self.sampler_index
        if name is not None or self.scheduler is not None:
            sampler, noise_schedule = sampler_of(name or defaults.sampler, self.scheduler)
            wishes |= {"sampler": sampler, "noise_schedule": noise_schedule}
        if self.subseed_strength:
            wishes |= {"variation_strength": self.subseed_strength, "variation_seed": max(self.subseed, 0)}
        return {name: value for name, value in wishes.items() if value is not None}

    def _set(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Of the options: the text encoder's last layers are counted from 1 there, and those left out from 0 here."""
        layers = settings.get("CLIP_stop_at_last_layers", 1)
        if not re.fullmatch(r"[1-9]\d?(\.0)?", str(layers)):
            raise refuse("CLIP_stop_at_last_layers", "must be an integer from 1", None)
        return {"clip_skip": int(float(layers)) - 1} if float(layers) > 1 else {}

    def _from_infotext(self) -> dict[str, Any]:
        if self.infotext is None:
            return {}
        known = ForeignRequest.model_fields.keys() - {"image", "mask", "user", "output_format"}
        return {name: value for name, value in read_info(self.infotext).fields.items() if name in known}

    def _refuse_what_cannot_be_done(self) -> None:
        for kind, name in _LORA.findall(self.prompt + self.negative_prompt):
            raise refuse("prompt", f"must not name a {kind.lower()}: {_shown(name)} is not on this server", None)
        if self.num_images > _MAX_PICTURES:
            raise refuse("batch_size * n_iter", f"must be at most {_MAX_PICTURES}", self.num_images)
        for style in self.styles:
            raise refuse("styles", "must be left out: this server has no styles", style)
        if max(self.seed_resize_from_h, self.seed_resize_from_w) > 0:
            raise refuse("seed_resize_from_w", "must be left out: noise is not resized here", self.seed_resize_from_w)
        if self.script_name and self.script_name.lower() != "none":
            raise refuse("script_name", f"must be left out: Script {_shown(self.script_name)} not found", None)
        for name, script in self.alwayson_scripts.items():
            if _is_active(script):
                rule = f"must be left out or switched off: always on script {_shown(name)} not found"
                raise refuse("alwayson_scripts", rule, None)
        self._refuse_other_models()

    def _refuse_other_models(self) -> None:
        if self.refiner_checkpoint and self.refiner_checkpoint.lower() not in _SAME:
            raise refuse("refiner_checkpoint", "must be left out: there is no refiner here", self.refiner_checkpoint)
        settings = self.override_settings
        if str(settings.get("sd_vae") or "Automatic").lower() not in {"automatic", "none"}:
            raise refuse("sd_vae", "must be Automatic: the model's own is used", settings["sd_vae"])


class Txt2ImgRequest(DrawRequest):
    """`POST /sdapi/v1/txt2img`."""

    enable_hr: bool = False
    """Hires fix."""
    hr_scale: float = Field(default=2.0, ge=1, le=4)
    hr_resize_x: int = Field(default=0, ge=0, le=LIMITS.max_size)
    hr_resize_y: int = Field(default=0, ge=0, le=LIMITS.max_size)
    hr_second_pass_steps: int = Field(default=0, ge=0, le=LIMITS.max_num_inference_steps)
    hr_upscaler: _Name | None = None
    hr_prompt: _Text = ""
    hr_negative_prompt: _Text = ""
    hr_sampler_name: _Name | None = None
    hr_scheduler: _Name | None = None
    hr_checkpoint_name: _Name | None = None
    hr_cfg: _Number | None = None
    firstphase_width: int = 0
    firstphase_height: int = 0
    """The older way to say the sizes: `width` x `height` is then the larger one."""

    def _drawn(self, defaults: Defaults) -> dict[str, Any]:
        wishes = super()._drawn(defaults)
        if not self.enable_hr:
            return wishes
        width, height = wishes.get("width", defaults.width), wishes.get("height", defaults.height)
        x, y = self.hr_resize_x, self.hr_resize_y
        if self.firstphase_width and self.firstphase_height:
            x, y, width, height = width, height, self.firstphase_width, self.firstphase_height
        size = dict(self._hires_size(x, y, width, height, defaults.pixels_per_latent))
        upscaler = (self.hr_upscaler or "Latent").lower()
        if upscaler not in _UPSCALERS:
            raise refuse("hr_upscaler", "must be one of GET /sdapi/v1/upscalers or /latent-upscale-modes", upscaler)
        if self.hr_checkpoint_name and self.hr_checkpoint_name.lower() not in _SAME:
            raise refuse("hr_checkpoint_name", "must be left out: both passes have one model", self.hr_checkpoint_name)
        hires: dict[str, Any] = {
            **size,
            "upscaler": _UPSCALERS[upscaler],
            "steps": self.hr_second_pass_steps or wishes.get("num_inference_steps", defaults.num_inference_steps),
            "strength": self.denoising_strength,
            "prompt": self.hr_prompt or None,
            "negative_prompt": self.hr_negative_prompt or None,
            "guidance_scale": self.hr_cfg,
        }
        if self.hr_sampler_name and self.hr_sampler_name.lower() not in _SAME:
            scheduler = None if (self.hr_scheduler or "").lower() in _SAME else self.hr_scheduler
            hires["sampler"], hires["noise_schedule"] = sampler_of(self.hr_sampler_name, scheduler)
        given = {name: value for name, value in hires.items() if value is not None}
        return {**wishes, "width": width, "height": height, "hires": given}

    def _hires_size(self, x: int, y: int, width: int, height: int, multiple: int) -> Iterator[tuple[str, float]]:
        if not x and not y:
            yield "scale", self.hr_scale
            return
        yield "width", x or round(y * width / height) // multiple * multiple
        yield "height", y or round(x * height / width) // multiple * multiple


class Img2ImgRequest(DrawRequest):
    """`POST /sdapi/v1/img2img`."""

    init_images: list[Picture] | None = None
    mask: EitherMask | None = None
    """White is changed; of a picture with an alpha channel, its alpha."""
    mask_blur: int = Field(default=4, ge=0, le=LIMITS.max_mask_blur)
    mask_blur_x: int | None = None
    mask_blur_y: int | None = None
    inpainting_fill: int = Field(default=0, ge=0, le=3)
    inpaint_full_res: bool = True
    inpaint_full_res_padding: int = Field(default=0, ge=0, le=LIMITS.max_mask_padding)
    inpainting_mask_invert: int = Field(default=0, ge=0, le=1)
    mask_round: bool = True
    initial_noise_multiplier: float | None = None
    image_cfg_scale: float | None = None
    resize_mode: int = Field(default=0, ge=0, le=3)
    include_init_images: bool = False

    def _drawn(self, defaults: Defaults) -> dict[str, Any]:
        wishes = super()._drawn(defaults)
        image = self.init_images[0] if self.init_images else None
        if self.resize_mode == 3:
            raise refuse("resize_mode", "must be 0, 1 or 2: latents are not resized here", self.resize_mode)
        steps = wishes.get("num_inference_steps", defaults.num_inference_steps)
        wishes |= {
            "image": image,
            # One step is always taken, as in A1111.
            "strength": min(1.0, max(self.denoising_strength, 1 / max(1, steps) + 1e-9)),
            "resize": _RESIZES[self.resize_mode],
            "width": wishes.get("width", defaults.width),
            "height": wishes.get("height", defaults.height),
        }
        if self.mask is not None:
            blurs = {blur for blur in (self.mask_blur_x, self.mask_blur_y) if blur is not None} or {self.mask_blur}
            if len(blurs) > 1:
                raise refuse("mask_blur_x", "must be the same as mask_blur_y", self.mask_blur_x)
            area = "masked" if self.inpaint_full_res else "whole"
            wishes |= {
                "mask": self.mask,
                "mask_invert": bool(self.inpainting_mask_invert),
                "mask_blur": blurs.pop(),
                "mask_area": area,
                "masked_content": _CONTENTS[self.inpainting_fill],
            }
            if area == "masked":
                wishes["mask_padding"] = self.inpaint_full_res_padding
        return wishes

    def _refuse_what_cannot_be_done(self) -> None:
        if self.init_images is not None and len(self.init_images) != 1:
            raise refuse("init_images", "must be one picture", len(self.init_images))
        super()._refuse_what_cannot_be_done()


def _shown(name: str) -> str:
    """A name, if it is none of a key or a prompt."""
    return repr(name) if re.fullmatch(r"[\w. -]{1,31}", name, re.ASCII) else "with this name"


def refuse(field: str, rule: str, value: object) -> InvalidParamsError:
    """The error for what cannot be done here."""
    return InvalidParamsError(field, rule, value)


def _is_active(script: object) -> bool:
    """Whether a script would do anything: its first argument, or one of its units, is not switched off."""
    arguments = script.get("args") if isinstance(script, dict) else script
    if isinstance(arguments, dict):
        arguments = [arguments]
    if not isinstance(arguments, list) or not arguments:
        return False
    if all(isinstance(unit, dict) for unit in arguments):
        return any(unit.get("enabled", True) for unit in arguments)
    return bool(arguments[0])
