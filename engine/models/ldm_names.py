"""Names of tensors in single-file checkpoints, as Stable Diffusion's first code (*ldm*) has them. No torch.

From a name as diffusers and transformers have it, which is ours, to where it is in such a file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.models.unet_plan import UNetPlan

__all__ = ["Source", "autoencoder_source", "open_clip_source", "unet_source"]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a tensor is in a file."""

    name: str
    third: int | None = None
    """0, 1 or 2: only that third of its rows, which hold queries, keys and values; None: all."""
    is_transposed: bool = False


_RESIDUAL: Final = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET_ENDS: Final = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_BLOCK: Final = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
_MIDDLE: Final = re.compile(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)")


def unet_source(name: str, plan: UNetPlan) -> Source:
    """Of a tensor of the UNet, without the prefix `model.diffusion_model.`."""
    if middle := _MIDDLE.fullmatch(name):
        if middle[1] == "attentions":
            return Source(f"middle_block.1.{middle[3]}")
        return Source(f"middle_block.{2 * int(middle[2])}.{_renamed(middle[3], _RESIDUAL)}")
    if not (found := _BLOCK.fullmatch(name)):
        return Source(_renamed(name, _UNET_ENDS))
    way, kind, rest = found[1], found[3], found[5]
    block, number = int(found[2]), int(found[4])
    if way == "down":
        # Each block has its layers and then what halves it; all blocks have as many layers.
        first = 1 + block * (plan.layers[0] + 1)
        if kind == "downsamplers":
            return Source(f"input_blocks.{first + plan.layers[0]}.0.{rest.replace('conv', 'op', 1)}")
        place = f"input_blocks.{first + number}"
    else:
        first = block * (plan.layers[0] + 1)
        if kind == "upsamplers":
            return Source(f"output_blocks.{first + plan.layers[0]}.{2 if plan.up_depths[block] else 1}.{rest}")
        place = f"output_blocks.{first + number}"
    return Source(f"{place}.1.{rest}" if kind == "attentions" else f"{place}.0.{_renamed(rest, _RESIDUAL)}")


_AUTOENCODER_BLOCK: Final = re.compile(r"(en|de)coder\.(?:down|up)_blocks\.(\d+)\.(resnets|\w+samplers)\.(\d+)\.(.+)")
_AUTOENCODER_MIDDLE: Final = re.compile(r"((?:en|de)coder)\.mid_block\.(resnets|attentions)\.(\d+)\.(.+)")
_ATTENTION: Final = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_SHORTCUT: Final = {"conv_shortcut": "nin_shortcut"}


def autoencoder_source(name: str, num_blocks: int) -> Source:
    """Of a tensor of the autoencoder, without the prefix `first_stage_model.`."""
    if middle := _AUTOENCODER_MIDDLE.fullmatch(name):
        half, kind, index, rest = middle[1], middle[2], middle[3], middle[4]
        if kind == "attentions":
            return Source(f"{half}.mid.attn_1.{_renamed(rest, _ATTENTION)}")
        return Source(f"{half}.mid.block_{int(index) + 1}.{_renamed(rest, _SHORTCUT)}")
    if not (found := _AUTOENCODER_BLOCK.fullmatch(name)):
        return Source(name.replace("conv_norm_out", "norm_out"))
    half, kind, layer, rest = found[1], found[3], found[4], found[5]
    # Both halves count their blocks from the pixels.
    place = f"encoder.down.{found[2]}" if half == "en" else f"decoder.up.{num_blocks - 1 - int(found[2])}"
    if kind == "resnets":
        return Source(f"{place}.block.{layer}.{_renamed(rest, _SHORTCUT)}")
    return Source(f"{place}.{'down' if half == 'en' else 'up'}sample.{rest}")


_OPEN_CLIP_ENDS: Final = {
    "embeddings.token_embedding.weight": Source("token_embedding.weight"),
    "embeddings.position_embedding.weight": Source("positional_embedding"),
    "final_layer_norm.weight": Source("ln_final.weight"),
    "final_layer_norm.bias": Source("ln_final.bias"),
    "text_projection.weight": Source("text_projection", is_transposed=True),
}
_OPEN_CLIP_LAYER: Final = {
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_JOINED: Final = re.compile(r"self_attn\.([qkv])_proj\.(weight|bias)")


def open_clip_source(name: str) -> Source:
    """Of a tensor of OpenCLIP's text encoder, which transformers has as CLIP's."""
    if name in _OPEN_CLIP_ENDS:
        return _OPEN_CLIP_ENDS[name]
    _, _, layer, rest = name.split(".", 3)
    place = f"transformer.resblocks.{layer}"
    if joined := _JOINED.fullmatch(rest):
        return Source(f"{place}.attn.in_proj_{joined[2]}", third="qkv".index(joined[1]))
    return Source(f"{place}.{_renamed(rest, _OPEN_CLIP_LAYER)}")


def _renamed(name: str, names: Mapping[str, str]) -> str:
    """A name whose beginning is another there."""
    for ours, theirs in names.items():
        if name.startswith(f"{ours}."):
            return theirs + name[len(ours) :]
    return name
