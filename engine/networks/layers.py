"""The layers that the networks share: attention, residual blocks, halving and doubling.

Pictures are (R, C, h, w) in torch.channels_last, so that taking them for (R, h * w, C) costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad, scaled_dot_product_attention, silu

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Downsample", "JoinedLinear", "ResidualBlock", "Upsample", "attend", "call", "fresh"]


def call(layer: nn.Module, inputs: Tensor) -> Tensor:
    """Run a linear layer or a convolution.

    All whose weights an adapter (LoRA) may change are run through this function: a side path for some rows goes here.
    """
    output: Tensor = layer(inputs)
    return output


def attend(queries: Tensor, keys: Tensor, values: Tensor, num_heads: int, *, is_causal: bool = False) -> Tensor:
    """Multi-head attention.

    Args:
        queries: (R, N, W), the heads side by side in W.
        keys: (R, L, W).
        values: (R, L, W).
        num_heads: into which W is split.
        is_causal: whether a token sees only itself and those before it.

    Returns:
        (R, N, W).
    """
    rows, width = queries.shape[0], queries.shape[-1]
    q, k, v = (
        part.reshape(rows, -1, num_heads, width // num_heads).transpose(1, 2) for part in (queries, keys, values)
    )
    mixed = scaled_dot_product_attention(q, k, v, is_causal=is_causal)  # (R, heads, N, W / heads)
    return mixed.transpose(1, 2).reshape(rows, -1, width)


class JoinedLinear(nn.Linear):
    """Linear layers that read the same input, run as one. In files they stand apart, each under its own name."""

    def __init__(self, names: Sequence[str], in_features: int, out_features: int, *, bias: bool) -> None:
        super().__init__(in_features, len(names) * out_features, bias=bias)
        self.names = tuple(names)

    def split(self, outputs: Tensor) -> tuple[Tensor, ...]:
        """(..., n * W) -> the outputs of the n layers, each (..., W)."""
        width = self.out_features // len(self.names)
        return tuple(outputs[..., index * width : (index + 1) * width] for index in range(len(self.names)))

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:  # noqa: FBT001
        """Show the layers under their own names: views, so that who copies into them fills the joined weights."""
        joined: dict[str, Tensor] = {}
        super()._save_to_state_dict(joined, "", keep_vars)
        holder = prefix.removesuffix(".").rpartition(".")[0]
        for part, tensor in joined.items():
            rows = tensor.shape[0] // len(self.names)
            for index, name in enumerate(self.names):
                destination[f"{holder}.{name}.{part}"] = tensor[index * rows : (index + 1) * rows]


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut; in a UNet the timestep shifts, or scales and shifts, what is between them."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        num_groups: int,
        eps: float,
        time_width: int = 0,
        has_scale: bool = False,
    ) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(num_groups, in_channels, eps)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        if time_width:
            self.time_emb_proj = nn.Linear(time_width, (2 if has_scale else 1) * out_channels)
        self.norm2 = nn.GroupNorm(num_groups, out_channels, eps)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None
        self.has_scale = has_scale
        self.time_columns = slice(0)
        """Its own columns of the packed `time`; set by the UNet."""

    def forward(self, inputs: Tensor, time: Tensor | None = None) -> Tensor:
        """(R, C in, h, w) -> (R, C out, h, w); `time` is (R, T), see `UNet.pack_time`."""
        hidden = call(self.conv1, silu(self.norm1(inputs)))
        if time is None:
            hidden = self.norm2(hidden)
        else:
            mine = time[:, self.time_columns, None, None]
            if self.has_scale:
                # Slices, as OpenVINO 2026.4 cannot compile torch.chunk here.
                scale, shift = mine[:, : hidden.shape[1]], mine[:, hidden.shape[1] :]
                hidden = self.norm2(hidden) * (1 + scale) + shift
            else:
                hidden = self.norm2(hidden + mine)
        hidden = call(self.conv2, silu(hidden))
        return hidden + (inputs if self.conv_shortcut is None else call(self.conv_shortcut, inputs))


def fresh(rows: int, width: int, deviation: float = 1.0) -> Tensor:
    """(rows, width), random, of this standard deviation.

    Not normal, and not scaled afterwards: on the meta device either imports torch's compiler, for half a second.
    """
    bound = deviation * 3**0.5
    return nn.init.uniform_(torch.empty(rows, width), -bound, bound)


class Downsample(nn.Module):
    """Halves height and width."""

    def __init__(self, channels: int, padding: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=padding)

    def forward(self, inputs: Tensor) -> Tensor:
        """(R, C, h, w) -> (R, C, ceil(h / 2), ceil(w / 2)); without padding h and w must be even."""
        # Autoencoders pad right and below only, UNets on all sides.
        return call(self.conv, inputs if self.conv.padding[0] else pad(inputs, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Doubles height and width, or nearly so."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, inputs: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """(R, C, h, w) -> (R, C, *size): what the skip connection beside it has, as odd sizes were rounded up."""
        height, width = size or (2 * inputs.shape[2], 2 * inputs.shape[3])
        return call(self.conv, interpolate(inputs, size=(height, width), mode="nearest"))
