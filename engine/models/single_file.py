"""A model in one `.safetensors` file, as A1111 and ComfyUI use them: which family it is, read off its header. No torch.

Nothing is fetched and nothing is converted on disk: the configurations ship with the server, and weights are read under
their names in the file (`ldm_names.py`).
"""

from __future__ import annotations

import copy
import functools
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from engine.errors import ModelLoadError
from engine.models.side_file import SideFile, read_side_file, side_file_of
from engine.models.weights_header import read_header

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SingleFile", "autoencoder_prefix", "read_single_file", "tokenizer_folder"]

logger = logging.getLogger(__name__)

UNET_PREFIX: Final = "model.diffusion_model."
_CONFIGS: Final = Path(__file__).resolve().parent / "configs"
_REFINER: Final = "conditioner.embedders.0.model."
_SECOND_ENCODER: Final = "conditioner.embedders.1.model."
_NOT_USED: Final = (
    *(
        "model_ema.",
        "first_stage_model.",
        "cond_stage_model.",
        "conditioner.",
        "denoiser.",
        "loss.",
        "embedding_manager.",
    ),
    *("alphas", "betas", "sqrt_", "log_one_minus", "posterior_", "lvlb_weights", "logvar", "v_pred", "ztsnr"),
)
"""What names begin with that training has left in many files, or that only says something by being there."""
_MOST_NAMED: Final = 5
_INPUTS: Final = {
    4: None,
    9: None,
    5: "a depth-to-image model",
    7: "an upscaling model",
    8: "an instruct-pix2pix model",
}


@dataclass(frozen=True, slots=True)
class SingleFile:
    """A checkpoint that was recognised."""

    path: Path
    configs: Mapping[str, Any]
    """Part -> what its `config.json` would say in a folder; `scheduler` among them."""
    prefixes: Mapping[str, str]
    """Part -> what its tensors' names begin with."""
    open_clip: tuple[str, ...]
    """The text encoders that have OpenCLIP's names."""
    side: SideFile


def read_single_file(path: Path) -> SingleFile:
    """Recognise a checkpoint.

    Raises:
        ModelLoadError: it is damaged, or of a kind that is not served; the message says which.
    """
    header = read_header(path)
    shapes, notes = header.shapes, header.notes
    side = read_side_file(path)
    name = _family_name(path, shapes)
    configs = copy.deepcopy(_template(name))
    channels = shapes[f"{UNET_PREFIX}input_blocks.0.0.weight"][1]
    configs["unet"]["in_channels"] = channels
    if name == "sdxl":
        encoders = {"text_encoder": "conditioner.embedders.0.transformer.", "text_encoder_2": _SECOND_ENCODER}
        open_clip: tuple[str, ...] = ("text_encoder_2",)
    elif name == "sd2":
        encoders, open_clip = {"text_encoder": "cond_stage_model.model."}, ("text_encoder",)
    else:
        encoders, open_clip = {"text_encoder": "cond_stage_model.transformer."}, ()
    _set_scheduler(path, configs["scheduler"], shapes, notes, side, guesses=name == "sd2", is_plain=channels == 4)
    prefixes = {"unet": UNET_PREFIX, **encoders}
    if side.vae is None:
        prefixes["vae"] = "first_stage_model."
    for part, prefix in prefixes.items():
        if not any(tensor.startswith(prefix) for tensor in shapes):
            cure = f'; name one in {side_file_of(path)}: vae = "NAME"' if part == "vae" else ""
            raise ModelLoadError(f"{path} has no {part} in it (no tensor begins with {prefix}){cure}")
    known = (*prefixes.values(), *_NOT_USED)
    if unknown := tuple(tensor for tensor in shapes if not tensor.startswith(known)):
        _note_unknown(path, unknown)
    return SingleFile(path, configs, prefixes, open_clip, side)


def tokenizer_folder(path: Path) -> Path | None:
    """A tokenizer that was put beside a single file, for words of its own; None: there is none, it reads CLIP's."""
    for folder in (path.with_suffix(".tokenizer"), path.parent / "tokenizer"):
        if (folder / "tokenizer.json").is_file() or (folder / "vocab.json").is_file():
            return folder
    return None


def autoencoder_prefix(path: Path) -> str:
    """What the names in a file with an autoencoder begin with: some have been cut out of a model, some not.

    Raises:
        ModelLoadError: it is damaged, or holds no autoencoder.
    """
    names = read_header(path).tensors
    for prefix in ("", "first_stage_model."):
        if f"{prefix}decoder.conv_in.weight" in names:
            return prefix
    raise ModelLoadError(f"{path} holds no autoencoder: it has no tensor decoder.conv_in.weight")


def _family_name(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The name of the configurations that fit.

    Raises:
        ModelLoadError: none does.
    """
    first = shapes.get(f"{UNET_PREFIX}input_blocks.0.0.weight", ())
    if len(first) != 4:
        raise ModelLoadError(
            f"{path} is not a checkpoint of Stable Diffusion: it has no tensor {UNET_PREFIX}input_blocks.0.0.weight"
        )
    if first[1] not in _INPUTS or _INPUTS[first[1]] is not None:
        what = _INPUTS.get(first[1]) or "a model of another kind"
        raise ModelLoadError(f"{path}: {what} ({first[1]} input channels) is not served")
    has_second = any(name.startswith(_SECOND_ENCODER) for name in shapes)
    if not has_second and any(name.startswith(_REFINER) for name in shapes):
        raise ModelLoadError(f"{path}: a refiner of Stable Diffusion XL is not served; its base model works alone")
    widths = {shape[1] for name, shape in shapes.items() if name.endswith("attn2.to_k.weight") and len(shape) == 2}
    for name in ("sd1", "sd2", "sdxl"):
        if widths == {_template(name)["unet"]["cross_attention_dim"]} and has_second == (name == "sdxl"):
            return name
    raise ModelLoadError(
        f"{path} is of no known family: its UNet reads texts of {sorted(widths)} numbers a token; Stable Diffusion 1, "
        "2 and XL have 768, 1024 and 2048"
    )


def _set_scheduler(
    path: Path,
    scheduler: dict[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    notes: Mapping[str, str],
    side: SideFile,
    *,
    guesses: bool,
    is_plain: bool,
) -> None:
    """Say what the network predicts: as its owner says, else as the file does, else as its family mostly does."""
    noted = notes.get("modelspec.prediction_type") or notes.get("prediction_type")
    noted = {"v": "v_prediction", "eps": "epsilon"}.get(noted or "", noted)
    if side.prediction_type is not None:
        scheduler["prediction_type"] = side.prediction_type
    elif "v_pred" in shapes:
        scheduler["prediction_type"] = "v_prediction"
    elif noted in ("epsilon", "v_prediction"):
        scheduler["prediction_type"] = noted
    elif guesses:
        scheduler["prediction_type"] = "v_prediction" if is_plain else "epsilon"
        _warn_of_guess(path, scheduler["prediction_type"], "epsilon" if is_plain else "v_prediction")
    if side.zero_terminal_snr if side.zero_terminal_snr is not None else "ztsnr" in shapes:
        scheduler["rescale_betas_zero_snr"] = True


@functools.cache
def _warn_of_guess(path: Path, assumed: str, other: str) -> None:
    logger.warning(
        "%s does not say whether it predicts noise or velocity: %s is assumed; where pictures are noise, set "
        'prediction_type = "%s" in %s',
        path.name,
        assumed,
        other,
        side_file_of(path).name,
    )


@functools.cache
def _note_unknown(path: Path, names: tuple[str, ...]) -> None:
    logger.info("%s: %d tensors are not known and not used: %s", path.name, len(names), ", ".join(names[:_MOST_NAMED]))


@functools.cache
def _template(name: str) -> dict[str, Any]:
    return dict(json.loads((_CONFIGS / f"{name}.json").read_bytes()))
