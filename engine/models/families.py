"""The families of models that are served, and how they differ, as data. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from engine.errors import ModelLoadError
from engine.samplers import SD1_AYS_TIMESTEPS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["STABLE_DIFFUSION_1", "Family", "check_added_inputs", "check_channels", "family_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What all models of one family have in common."""

    name: str
    """As people call it."""
    ays_timesteps: tuple[int, ...]
    """Of the noise schedule `ays`: ten, found for this family."""
    row_cost: float
    """Of a model row at 512x512, in rows of Stable Diffusion 1."""
    num_text_encoders: int = 1
    reads_sizes: bool = False
    """Whether the network is told six numbers beside the timestep: the picture's sizes, and what was cut off."""
    autoencoder_overflows: bool = False
    """Whether its autoencoder gives black pictures in float16, unless its `config.json` says that it was mended."""


STABLE_DIFFUSION_1: Final = Family(name="Stable Diffusion 1", ays_timesteps=SD1_AYS_TIMESTEPS, row_cost=1.0)
_STABLE_DIFFUSION_2: Final = Family(name="Stable Diffusion 2", ays_timesteps=SD1_AYS_TIMESTEPS, row_cost=1.0)
_STABLE_DIFFUSION_XL: Final = Family(
    name="Stable Diffusion XL",
    # "Align Your Steps" (Sabour et al., 2024), as diffusers' `AysSchedules` has them.
    ays_timesteps=(999, 845, 730, 587, 443, 310, 193, 116, 53, 13),
    # Counted with torch's FlopCounterMode: 6.76 TFLOP at 1024x1024, where four times 0.80 would be as its size says.
    row_cost=2.1,
    num_text_encoders=2,
    reads_sizes=True,
    autoencoder_overflows=True,
)
_OTHER: Final = Family(name="like Stable Diffusion 1", ays_timesteps=SD1_AYS_TIMESTEPS, row_cost=1.0)

_BY_TEXT_WIDTH: Final = {768: STABLE_DIFFUSION_1, 1024: _STABLE_DIFFUSION_2}

# Tuples and not sets: what they are compared with comes from a file and may be unhashable.
_ADDITIONS: Final = (None, "text", "text_time")
_SIZE_NUMBERS: Final = 6
_REFINER_NUMBERS: Final = 5
"""Two sizes, the crop, and a mark for beauty."""
_OTHER_MODELS: Final = {
    5: "a depth-to-image model",
    7: "an upscaling model",
    8: "an instruct-pix2pix model",
}
"""Input channels, where latents have four -> what has so many."""
_UNSERVED_INPUTS: Final = ("class_embed_type", "encoder_hid_dim", "encoder_hid_dim_type", "num_class_embeds")
"""Each of these makes a UNet want inputs beyond what is served."""


def family_of(unet: Mapping[str, Any]) -> Family:
    """The family that a UNet belongs to, as its `config.json` says; checked already."""
    if unet.get("addition_embed_type") == "text_time":
        return _STABLE_DIFFUSION_XL
    width = unet.get("cross_attention_dim", 1280)
    if unet.get("addition_embed_type") is not None or not isinstance(width, int):
        return _OTHER
    return _BY_TEXT_WIDTH.get(width, _OTHER)


def check_channels(path: Path, unet: Mapping[str, Any], latent_channels: int, default: int) -> None:
    """Check that a UNet reads latents, or latents beside a mask and the masked picture's latents (*inpainting*).

    Raises:
        ModelLoadError: it reads or gives something else; the message says what is known for that.
    """
    found = unet.get("out_channels", default)
    if found != latent_channels:
        raise ModelLoadError(
            f"{path}: out_channels must be {latent_channels}, as the autoencoder's latents have, not {found!r}"
        )
    found, inpainting = unet.get("in_channels", default), 2 * latent_channels + 1
    if found in (latent_channels, inpainting):
        return
    known = _OTHER_MODELS.get(found) if latent_channels == default and isinstance(found, int) else None
    if known is not None:
        raise ModelLoadError(f"{path}: {known} (in_channels {found}) is not served")
    raise ModelLoadError(
        f"{path}: in_channels must be {latent_channels}, as the autoencoder's latents have, or {inpainting} for "
        f"inpainting, not {found!r}"
    )


def check_added_inputs(path: Path, unet: Mapping[str, Any], projection_width: object) -> None:
    """Check what a UNet is told beside latents, timestep and text.

    Args:
        path: its `config.json`, for messages.
        unet: what that says.
        projection_width: of the second text encoder's pooled output; None where there is no such encoder.

    Raises:
        ModelLoadError: something that is not served.
    """
    for name in _UNSERVED_INPUTS:
        if unet.get(name) is not None:
            raise ModelLoadError(f"{path}: {name} must not be set, as no such input is served")
    addition = unet.get("addition_embed_type")
    if addition not in _ADDITIONS:
        raise ModelLoadError(f"{path}: addition_embed_type must be text, text_time or not set, not {addition!r}")
    if addition != "text_time":
        return
    width, total = unet.get("addition_time_embed_dim"), unet.get("projection_class_embeddings_input_dim")
    if not isinstance(width, int) or not isinstance(total, int) or not isinstance(projection_width, int):
        raise ModelLoadError(f"{path}: addition_embed_type is text_time, so whole numbers must be given for it")
    if total == projection_width + _REFINER_NUMBERS * width:
        raise ModelLoadError(f"{path}: a refiner of Stable Diffusion XL is not served; its base model works alone")
    if total != projection_width + _SIZE_NUMBERS * width:
        raise ModelLoadError(
            f"{path}: projection_class_embeddings_input_dim must be projection_dim + {_SIZE_NUMBERS} * "
            f"addition_time_embed_dim = {projection_width + _SIZE_NUMBERS * width}, not {total}"
        )
