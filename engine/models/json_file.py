"""A JSON file of a model's folder, whoever has written it: an object within bounds, or refused. No torch."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from engine.errors import ModelLoadError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_json"]

_MAX_JSON_BYTES = 2**20
_MAX_ENTRIES = 10_000
"""Of a list: `trained_betas` may have one for each of the training's timesteps."""
_MAX_NUMBER = 1_000_000
_MAX_LAYERS = 100
"""Of anything counted in layers: SD 1.x has 12 in its text encoder, 2 in a block."""


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ModelLoadError: no such file, or no JSON object in it.
    """
    try:
        if (num_bytes := path.stat().st_size) > _MAX_JSON_BYTES:
            raise ModelLoadError(f"{path} must have at most {_MAX_JSON_BYTES} bytes, not {num_bytes}")
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise ModelLoadError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ModelLoadError(f"{path} is damaged: it is not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise ModelLoadError(f"{path} is damaged: a JSON object was expected")
    _check_bounds(path, "", value)
    return value


def _check_bounds(path: Path, name: str, value: object) -> None:
    """Refuse numbers and lists beyond any model's: laying out a network of a billion layers would never end.

    Raises:
        ModelLoadError: there is one.
    """
    if isinstance(value, dict | list):
        if isinstance(value, list) and len(value) > _MAX_ENTRIES:
            raise ModelLoadError(f"{path}: {name} must have at most {_MAX_ENTRIES} entries, not {len(value)}")
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            _check_bounds(path, str(key) if isinstance(value, dict) else name, part)
    # diffusers writes -Infinity into the configuration of a DPM-Solver++, as `lambda_min_clipped`.
    elif isinstance(value, float | int) and math.isfinite(value):
        most = _MAX_LAYERS if "layers" in name else _MAX_NUMBER
        if not -most <= value <= most:
            raise ModelLoadError(f"{path}: {name} must be a number of at most {most}, not {value!r}")
