"""What a file `NAME.toml` beside a model says of it. No torch."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal

from engine.errors import ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PermanentLora", "SideFile", "read_side_file", "side_file_of"]

_MAX_BYTES: Final = 2**16
_PREDICTION_TYPES: Final = ("epsilon", "v_prediction")
_DEFAULTS: Final[Mapping[str, type]] = MappingProxyType(
    {
        "num_inference_steps": int,
        "guidance_scale": float,
        "sampler": str,
        "noise_schedule": str,
        "width": int,
        "height": int,
    }
)


_MAX_LORAS: Final = 8
_MAX_WEIGHT: Final = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PermanentLora:
    """A LoRA that belongs to a model for good."""

    path: Path
    weight: float = 1.0
    """How much of what it says of the UNet is added; 1: all, as it was trained."""
    text_weight: float = 1.0
    """The same of the text encoders."""

    def share_of(self, part: str) -> float:
        """How much of it is added to one of the model's networks."""
        return self.weight if part == "unet" else self.text_weight


@dataclass(frozen=True, slots=True, kw_only=True)
class SideFile:
    """What its owner says of a model."""

    vae: Path | None = None
    """Another autoencoder: a folder in diffusers layout, or a safetensors file; beside the model."""
    prediction_type: Literal["epsilon", "v_prediction"] | None = None
    """None: as the model's own files say."""
    zero_terminal_snr: bool | None = None
    """Whether the noise schedule ends in noise alone; None: as the model's own files say."""
    loras: tuple[PermanentLora, ...] = ()
    """Added to the weights, in this order."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """What a request gets that does not say: names of `GenerationParams` -> values."""


def side_file_of(model: Path) -> Path:
    """Where a model's side file is: `NAME.toml` beside the folder `NAME` or the file `NAME.safetensors`."""
    name = model.stem if model.is_file() else model.name
    return model.parent / f"{name}.toml"


def read_side_file(model: Path) -> SideFile:
    """Read a model's side file; an empty one where there is none.

    Raises:
        ModelLoadError: it is damaged, or says what is not known; it names file and key.
    """
    path = side_file_of(model)
    if not path.is_file():
        return SideFile()
    try:
        text = path.read_bytes()[: _MAX_BYTES + 1]
        if len(text) > _MAX_BYTES:
            raise ModelLoadError(f"{path} must have at most {_MAX_BYTES} bytes")
        said = tomllib.loads(text.decode())
    except OSError as error:
        raise ModelLoadError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # no UTF-8, or no TOML
        raise ModelLoadError(f"{path} is damaged: it is not valid TOML ({error})") from error
    unknown = said.keys() - {"vae", "prediction_type", "zero_terminal_snr", "loras", "defaults"}
    if unknown:
        raise ModelLoadError(
            f"{path}: {', '.join(sorted(unknown))} must not be set; vae, prediction_type, zero_terminal_snr, "
            "[[loras]] and [defaults] are known"
        )
    prediction_type, zero_terminal_snr = said.get("prediction_type"), said.get("zero_terminal_snr")
    if prediction_type not in (None, *_PREDICTION_TYPES):
        raise ModelLoadError(f"{path}: prediction_type must be epsilon or v_prediction, not {prediction_type!r}")
    if not isinstance(zero_terminal_snr, bool | None):
        raise ModelLoadError(f"{path}: zero_terminal_snr must be true or false, not {zero_terminal_snr!r}")
    return SideFile(
        vae=_vae(path, said.get("vae")),
        prediction_type=prediction_type,
        zero_terminal_snr=zero_terminal_snr,
        loras=_loras(path, said.get("loras", [])),
        defaults=_defaults(path, said.get("defaults", {})),
    )


def _vae(path: Path, name: object) -> Path | None:
    if name is None:
        return None
    if not isinstance(name, str) or Path(name).name != name or not (path.parent / name).exists():
        raise ModelLoadError(f"{path}: vae must be the name of a file or folder in {path.parent}, not {name!r}")
    return path.parent / name


def _loras(path: Path, said: object) -> tuple[PermanentLora, ...]:
    if not isinstance(said, list) or not all(isinstance(entry, dict) for entry in said):
        raise ModelLoadError(f"{path}: loras must be tables, each begun by a line [[loras]]")
    if len(said) > _MAX_LORAS:
        raise ModelLoadError(f"{path}: there must be at most {_MAX_LORAS} loras, not {len(said)}")
    return tuple(_lora(path, entry) for entry in said)


def _lora(path: Path, said: Mapping[str, Any]) -> PermanentLora:
    unknown = said.keys() - {"file", "weight", "text_weight"}
    if unknown:
        raise ModelLoadError(f"{path}: loras.{min(unknown)} is not known; file, weight, text_weight are")
    name = said.get("file")
    # In a folder below, where MODELS_DIR does not take it for a model; nowhere else.
    inside = Path(name) if isinstance(name, str) else Path("..")
    if inside.is_absolute() or ".." in inside.parts or not (path.parent / inside).is_file():
        raise ModelLoadError(f"{path}: loras.file must be a file in {path.parent}, or in a folder there, not {name!r}")
    weight = said.get("weight", 1.0)
    weights = {"weight": weight, "text_weight": said.get("text_weight", weight)}
    for key, value in weights.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _MAX_WEIGHT:
            raise ModelLoadError(
                f"{path}: loras.{key} must be a number from {-_MAX_WEIGHT:g} to {_MAX_WEIGHT:g}, not {value!r}"
            )
    return PermanentLora(path=path.parent / inside, **weights)


def _defaults(path: Path, said: object) -> Mapping[str, Any]:
    if not isinstance(said, dict):
        raise ModelLoadError(f"{path}: defaults must be a table")
    defaults: dict[str, Any] = {}
    for name, value in said.items():
        kind = _DEFAULTS.get(name)
        if kind is None:
            raise ModelLoadError(f"{path}: defaults.{name} is not known; {', '.join(_DEFAULTS)} are")
        if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
            raise ModelLoadError(f"{path}: defaults.{name} must be a {_WORDS[kind]}, not {value!r}")
        defaults[name] = value
    return defaults


_WORDS: Final = {int: "whole number", float: "number", str: "text"}
