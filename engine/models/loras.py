"""Permanent LoRAs: low-rank changes of a model's weights, added once while the weights are read.

Files as trainers write them: kohya's scripts (`lora_unet_...lora_down`, LoCon's `lora_mid` too), diffusers and peft.
Whatever a file holds is used, or the whole file is refused: half a LoRA would draw another picture.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

import torch

from engine.errors import ModelLoadError
from engine.models.weights_file import WeightsFile

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from pathlib import Path

    from engine.models.side_file import PermanentLora

__all__ = ["Change", "LoraPart", "changed", "lora_changes"]

LoraPart = Literal["unet", "text_encoder", "text_encoder_2"]

_PREFIXES: Final[Mapping[str, LoraPart]] = {
    "lora_unet_": "unet",
    "unet.": "unet",
    "base_model.model.": "unet",
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "text_encoder.": "text_encoder",
    "text_encoder_2.": "text_encoder_2",
}
_MATRIX: Final = re.compile(
    r"(?P<layer>.+?)(?:\.lora_(?:(?P<down>down|A)|(?P<up>up|B)|(?P<mid>mid))(?:\.default)?|[._]lora\.(?:(?P<down2>down)|up))\.weight"
)
_OTHER_KINDS: Final = {
    "hada_": "LoHa",
    "lokr_": "LoKr",
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "oft_": "OFT",
    ".diff": "whole differences of weights",
    "glora": "GLoRA",
}


@dataclass(slots=True)
class _LowRank:
    """What a file says of one layer: its change is `up @ mid @ down * alpha / rank`."""

    matrices: dict[str, torch.Tensor] = field(default_factory=dict)
    """`down` (r, inputs...), `up` (outputs, r...), and in some convolutions `mid` (r, r, height, width)."""
    alpha: float | None = None
    """None: the rank."""

    def check(self, shape: torch.Size) -> None:
        """Raises ValueError where the matrices do not suit a weight of this shape."""
        down, up = self.matrices["down"], self.matrices["up"]
        mid = self.matrices.get("mid", torch.empty(len(down), len(down), 1, 1, device="meta"))
        if up[:1].numel() != len(down) or mid.shape[:2] != (len(down), len(down)) or mid.ndim != 4:
            raise ValueError(f"the ranks of its matrices differ ({len(down)} and {up[:1].numel()})")
        inputs = down[:1].numel() * mid.shape[2:].numel()
        if (len(up), inputs) != (shape[0], shape[1:].numel()):
            raise ValueError(f"it changes one of {len(up)}x{inputs}")

    def change(self, like: torch.Tensor) -> torch.Tensor:
        """What is added to a weight: of its shape and on its device, float32."""
        on_device = {name: matrix.to(like.device, torch.float32) for name, matrix in self.matrices.items()}
        down, up = on_device["down"].flatten(1), on_device["up"].flatten(1)
        mid = on_device.get("mid")
        change = up @ down if mid is None else torch.einsum("or,rshw,si->oihw", up, mid, down)
        scale = 1.0 if self.alpha is None else self.alpha / len(down)
        return scale * change.reshape(like.shape)


Change = tuple[float, _LowRank]
"""How much of it, and what."""


def changed(weight: torch.Tensor, changes: Iterable[Change]) -> torch.Tensor:
    """A weight with its changes, float32."""
    return sum((share * low_rank.change(weight) for share, low_rank in changes), weight.float())


def lora_changes(
    loras: Iterable[PermanentLora],
    part: LoraPart,
    parts: Collection[str],
    weights: Mapping[str, torch.Tensor],
    other_name: Callable[[str], str] | None = None,
) -> dict[str, list[Change]]:
    """What LoRAs change in one of a model's networks.

    Args:
        loras: the files, and how much of each.
        part: the network.
        parts: the networks that the model has.
        weights: name -> weight of that network, on any device.
        other_name: of a weight, in files that follow Stable Diffusion's first code; None: there are no such.

    Returns:
        Name of a weight -> its changes.

    Raises:
        ModelLoadError: a file is damaged, of another kind, or for another model; the message names it.
    """
    changes: dict[str, list[Change]] = defaultdict(list)
    known: dict[str, str] | None = None
    for lora in loras:
        found = _read(lora.path)
        strange = {owner for owner, _ in found} - set(parts)
        if strange:
            raise ModelLoadError(f"{lora.path} changes the {' and the '.join(sorted(strange))}, which this model lacks")
        share = lora.share_of(part)
        if known is None:
            known = _names(weights, other_name)
        for (owner, layer), low_rank in found.items():
            if owner != part:
                continue
            if layer not in known:
                raise ModelLoadError(f"{lora.path} does not suit this model: its {part} has no layer {layer}")
            name = known[layer]
            try:
                low_rank.check(weights[name].shape)
            except ValueError as error:
                shape = "x".join(map(str, weights[name].shape))
                raise ModelLoadError(
                    f"{lora.path} does not suit this model: the {part}'s {name} is a weight of {shape}, and {error}"
                ) from error
            if share:
                changes[name].append((share, low_rank))
    return changes


def _names(weights: Mapping[str, torch.Tensor], other_name: Callable[[str], str] | None) -> dict[str, str]:
    """What files call the layers -> the name of the layer's weight. All dots are underlines, as kohya writes them."""
    names = [name for name, weight in weights.items() if name.endswith(".weight") and weight.ndim >= 2]
    known = {_plain(name.removesuffix(".weight")): name for name in names}
    if other_name is not None:
        known |= {_plain(other_name(name).removesuffix(".weight")): name for name in names}
    return known


def _plain(layer: str) -> str:
    return layer.replace(".", "_")


def _read(path: Path) -> dict[tuple[LoraPart, str], _LowRank]:
    """Network and layer -> its change.

    Raises:
        ModelLoadError: the file is damaged, or holds something else.
    """
    file = WeightsFile(path)
    found: dict[tuple[LoraPart, str], _LowRank] = defaultdict(_LowRank)
    for key in file.names:
        if key.endswith(".alpha"):
            found[_place(path, key.removesuffix(".alpha"))].alpha = _alpha(path, key, file.tensor(key))
            continue
        matrix = _MATRIX.fullmatch(key)
        if matrix is None:
            kind = next((kind for sign, kind in _OTHER_KINDS.items() if sign in key), "a kind that is not known")
            raise ModelLoadError(f"{path}: {key} is not of a plain LoRA ({kind}); only plain ones are supported")
        name = "down" if matrix["down"] or matrix["down2"] else "mid" if matrix["mid"] else "up"
        # Copied: a tensor left in the mapping would change when somebody overwrites the file.
        found[_place(path, matrix["layer"])].matrices[name] = file.tensor(key).clone()
    for (part, layer), low_rank in found.items():
        if not {"down", "up"} <= low_rank.matrices.keys():
            raise ModelLoadError(f"{path} is damaged: the {part}'s {layer} lacks one of its two matrices")
    if not found:
        raise ModelLoadError(f"{path} holds no LoRA")
    _set_noted_alphas(path, file.notes, found)
    return found


def _alpha(path: Path, key: str, tensor: torch.Tensor) -> float:
    if tensor.numel() != 1 or not bool(tensor.isfinite()):
        raise ModelLoadError(f"{path} is damaged: {key} is not one finite number")
    return float(tensor)


def _place(path: Path, layer: str) -> tuple[LoraPart, str]:
    """Network and layer that a key names."""
    prefix = next((prefix for prefix in _PREFIXES if layer.startswith(prefix)), None)
    if prefix is None:
        raise ModelLoadError(f"{path}: {layer} is of no network that is known; names begin with {', '.join(_PREFIXES)}")
    rest = _plain(layer.removeprefix(prefix)).removeprefix("text_model_").replace("_processor_to_", "_to_")
    # Old files of diffusers name the attention's output without its place in a list.
    return _PREFIXES[prefix], f"{rest}_0" if rest.endswith("_to_out") else rest


def _set_noted_alphas(path: Path, notes: Mapping[str, str], found: Mapping[tuple[LoraPart, str], _LowRank]) -> None:
    """Diffusers writes each network's alpha into the file's notes, where it is not the rank.

    Raises:
        ModelLoadError: the notes are damaged, or ask for other arithmetic.
    """
    try:
        said = json.loads(notes.get("lora_adapter_metadata") or "{}")
        alphas = {part: said.get(f"{part}.lora_alpha") for part, _ in found}
        others = [key for key in said if key.endswith((".alpha_pattern", ".use_rslora", ".use_dora")) and said[key]]
    except (ValueError, AttributeError, RecursionError) as error:
        raise ModelLoadError(f"{path} is damaged: lora_adapter_metadata is not a JSON object") from error
    if others:
        raise ModelLoadError(f"{path}: {', '.join(sorted(others))} is not supported; only plain LoRAs are")
    for (part, _), low_rank in found.items():
        alpha = alphas[part]
        if low_rank.alpha is None and isinstance(alpha, int | float) and math.isfinite(alpha):
            low_rank.alpha = float(alpha)
