"""The UNet of Stable Diffusion 1, 2, XL and of models/dreamlet: diffusers' UNet2DConditionModel, taken apart.

What is the same at every step is computed outside of it, once: the keys and values that cross attention reads of a
prompt (`pack_prompt`), and what each residual block is told of the timestep (`pack_time`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, silu

from engine.networks.conditioning import SizeAddition, TextAddition, time_embedding, waves
from engine.networks.layers import Downsample, JoinedLinear, ResidualBlock, Upsample, attend, call

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.models.unet_plan import UNetPlan

__all__ = ["UNet"]


class UNet(nn.Module):
    """Predicts the noise (or velocity) in latents."""

    def __init__(self, plan: UNetPlan) -> None:
        super().__init__()
        self.plan = plan
        self.conv_in = nn.Conv2d(plan.in_channels, plan.channels[0], 3, padding=1)
        self.time_embedding = time_embedding(plan)
        self.add_embedding: TextAddition | SizeAddition | None = None
        """What the network is told beside the timestep; its output goes to `pack_time`."""
        if plan.addition == "text":
            self.add_embedding = TextAddition(plan)
        elif plan.addition == "text_time":
            self.add_embedding = SizeAddition(plan)
        num_blocks = len(plan.channels)
        self.down_blocks = nn.ModuleList(DownBlock(plan, index) for index in range(num_blocks))
        self.mid_block = MiddleBlock(plan) if plan.has_middle else None
        self.up_blocks = nn.ModuleList(UpBlock(plan, index) for index in range(num_blocks))
        self.conv_norm_out = nn.GroupNorm(plan.num_groups, plan.channels[0], plan.eps)
        self.conv_out = nn.Conv2d(plan.channels[0], plan.out_channels, 3, padding=1)
        end = 0
        for block in self._residual_blocks():
            begin, end = end, end + block.time_emb_proj.out_features
            block.time_columns = slice(begin, end)
        end = 0
        for attention in self._cross_attentions():
            begin, end = end, end + attention.to_kv.out_features
            attention.prompt_columns = slice(begin, end)

    def forward(
        self, latents: Tensor, time: Tensor, prompt: Tensor, residuals: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Predict.

        Args:
            latents: (R, C, h, w).
            time: (R, T), each row's own row of `pack_time`.
            prompt: (R, L, K), as `pack_prompt` gave it.
            residuals: of control networks: what is added to each skip connection, in order, and at last to the middle.

        Returns:
            (R, C, h, w).
        """
        hidden = call(self.conv_in, latents)
        skips = [hidden]
        for block in self.down_blocks:
            hidden, new_skips = block(hidden, time, prompt)
            skips += new_skips
        if self.mid_block is not None:
            hidden = self.mid_block(hidden, time, prompt)
        if residuals is not None:
            *to_skips, to_middle = residuals
            skips = [skip + residual for skip, residual in zip(skips, to_skips, strict=True)]
            hidden = hidden + to_middle
        for block in self.up_blocks:
            hidden = block(hidden, skips, time, prompt)
        return call(self.conv_out, silu(self.conv_norm_out(hidden)))

    def pack_prompt(self, embeds: Tensor) -> Tensor:
        """(R, L, D), a text's embeddings -> (R, L, K): keys and values of every cross attention, side by side."""
        packed = [call(attention.to_kv, embeds) for attention in self._cross_attentions()]
        return torch.cat(packed, dim=-1) if packed else embeds[..., :0]

    def pack_time(self, timesteps: Tensor, addition: Tensor | None = None) -> Tensor:
        """What every residual block is told, side by side.

        Args:
            timesteps: (N,), float32: fractional ones exist, and half precision would round them.
            addition: (1, E), what `add_embedding` has made of the prompt.

        Returns:
            (N, T), in the network's dtype.
        """
        return self._packed(self.time_embedding(self._waves(timesteps)), addition)

    def pack_guided_time(self, timesteps: Tensor, guidance: Tensor, addition: Tensor | None = None) -> Tensor:
        """The same for a network that is told the guidance scale.

        Args:
            timesteps: (N,), as above.
            guidance: (1, G), waves of the guidance scale.
            addition: (1, E), as above.
        """
        return self._packed(self.time_embedding(self._waves(timesteps), guidance), addition)

    def _waves(self, timesteps: Tensor) -> Tensor:
        return waves(timesteps, self.plan).to(self.conv_in.weight.dtype)

    def _packed(self, embedding: Tensor, addition: Tensor | None) -> Tensor:
        embedding = silu(embedding if addition is None else embedding + addition)
        return torch.cat([call(block.time_emb_proj, embedding) for block in self._residual_blocks()], dim=-1)

    def _residual_blocks(self) -> list[ResidualBlock]:
        return [module for module in self.modules() if isinstance(module, ResidualBlock)]

    def _cross_attentions(self) -> list[CrossAttention]:
        return [module for module in self.modules() if isinstance(module, CrossAttention)]


class DownBlock(nn.Module):
    """Residual blocks, each with its attention, then half the size; the outermost first."""

    def __init__(self, plan: UNetPlan, index: int) -> None:
        super().__init__()
        width = plan.channels[index]
        inputs = [plan.channels[max(index - 1, 0)]] + [width] * (plan.layers[index] - 1)
        self.resnets = nn.ModuleList(residual_block(plan, channels, width) for channels in inputs)
        self.attentions = nn.ModuleList(
            Transformer(plan, width, plan.heads[index], depth) for depth in plan.down_depths[index]
        )
        is_last = index == len(plan.channels) - 1
        self.downsamplers = nn.ModuleList([] if is_last else [Downsample(width, plan.padding)])

    def forward(self, hidden: Tensor, time: Tensor, prompt: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(R, C in, h, w) -> (R, C out, h / 2, w / 2), and what the up blocks will read of it."""
        skips = []
        for index, resnet in enumerate(self.resnets):
            hidden = resnet(hidden, time)
            if self.attentions:
                hidden = self.attentions[index](hidden, prompt)
            skips.append(hidden)
        for downsample in self.downsamplers:
            hidden = downsample(hidden)
            skips.append(hidden)
        return hidden, skips


class MiddleBlock(nn.Module):
    """Attention between two residual blocks, at the smallest size."""

    def __init__(self, plan: UNetPlan) -> None:
        super().__init__()
        width = plan.channels[-1]
        self.resnets = nn.ModuleList(residual_block(plan, width, width) for _ in range(2))
        self.attentions = nn.ModuleList([Transformer(plan, width, plan.heads[-1], plan.middle_depth)])

    def forward(self, hidden: Tensor, time: Tensor, prompt: Tensor) -> Tensor:
        """(R, C, h, w) -> the same."""
        hidden = self.resnets[0](hidden, time)
        hidden = self.attentions[0](hidden, prompt)
        output: Tensor = self.resnets[1](hidden, time)
        return output


class UpBlock(nn.Module):
    """Residual blocks, each with a skip connection and its attention, then twice the size; the innermost first."""

    def __init__(self, plan: UNetPlan, index: int) -> None:
        super().__init__()
        widths = [*reversed(plan.channels)]
        width = widths[index]
        below, beside = widths[max(index - 1, 0)], widths[min(index + 1, len(widths) - 1)]
        num_layers = plan.layers[-1 - index] + 1
        inputs = [
            (below if layer == 0 else width) + (beside if layer == num_layers - 1 else width)
            for layer in range(num_layers)
        ]
        self.resnets = nn.ModuleList(residual_block(plan, channels, width) for channels in inputs)
        self.attentions = nn.ModuleList(
            Transformer(plan, width, plan.heads[-1 - index], depth) for depth in plan.up_depths[index]
        )
        is_last = index == len(widths) - 1
        self.upsamplers = nn.ModuleList([] if is_last else [Upsample(width)])

    def forward(self, hidden: Tensor, skips: list[Tensor], time: Tensor, prompt: Tensor) -> Tensor:
        """(R, C in, h, w) -> (R, C out, 2 h, 2 w), or what the next skip connection has; takes its own off `skips`."""
        for index, resnet in enumerate(self.resnets):
            hidden = resnet(torch.cat([hidden, skips.pop()], dim=1), time)
            if self.attentions:
                hidden = self.attentions[index](hidden, prompt)
        for upsample in self.upsamplers:
            hidden = upsample(hidden, skips[-1].shape[-2:])
        return hidden


class Transformer(nn.Module):
    """Attention within a picture and to the prompt, at every place of the picture."""

    def __init__(self, plan: UNetPlan, width: int, num_heads: int, depth: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(plan.num_groups, width, eps=1e-6)
        self.is_linear = plan.is_linear
        self.proj_in = nn.Linear(width, width) if plan.is_linear else nn.Conv2d(width, width, 1)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(width, num_heads, plan.text_width) for _ in range(depth)
        )
        self.proj_out = nn.Linear(width, width) if plan.is_linear else nn.Conv2d(width, width, 1)

    def forward(self, inputs: Tensor, prompt: Tensor) -> Tensor:
        """(R, C, h, w) -> the same."""
        rows, width, height, breadth = inputs.shape
        hidden: Tensor = self.norm(inputs)
        if not self.is_linear:
            hidden = call(self.proj_in, hidden)
        hidden = hidden.permute(0, 2, 3, 1).reshape(rows, height * breadth, width)  # a view in channels_last
        if self.is_linear:
            hidden = call(self.proj_in, hidden)
        for block in self.transformer_blocks:
            hidden = block(hidden, prompt)
        if self.is_linear:
            hidden = call(self.proj_out, hidden)
        hidden = hidden.reshape(rows, height, breadth, width).permute(0, 3, 1, 2)
        if not self.is_linear:
            hidden = call(self.proj_out, hidden)
        return hidden + inputs


class TransformerBlock(nn.Module):
    """Attention of places to each other, of places to the prompt, and a feed-forward layer."""

    def __init__(self, width: int, num_heads: int, text_width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = SelfAttention(width, num_heads)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = CrossAttention(width, num_heads, text_width)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, hidden: Tensor, prompt: Tensor) -> Tensor:
        """(R, N, W) -> the same; N = h * w places."""
        hidden = hidden + self.attn1(self.norm1(hidden))
        hidden = hidden + self.attn2(self.norm2(hidden), prompt)
        output: Tensor = hidden + self.ff(self.norm3(hidden))
        return output


class SelfAttention(nn.Module):
    """Each place of a picture reads all others."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_qkv = JoinedLinear(("to_q", "to_k", "to_v"), width, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, hidden: Tensor) -> Tensor:
        """(R, N, W) -> the same."""
        queries, keys, values = self.to_qkv.split(call(self.to_qkv, hidden))
        return call(self.to_out[0], attend(queries, keys, values, self.num_heads))


class CrossAttention(nn.Module):
    """Each place of a picture reads the prompt."""

    def __init__(self, width: int, num_heads: int, text_width: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_kv = JoinedLinear(("to_k", "to_v"), text_width, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])
        self.prompt_columns = slice(0)
        """Its own columns of the packed prompt; set by the UNet."""

    def forward(self, hidden: Tensor, prompt: Tensor) -> Tensor:
        """(R, N, W) -> the same; `prompt` is (R, L, K), as `UNet.pack_prompt` gave it."""
        keys, values = self.to_kv.split(prompt[..., self.prompt_columns])
        return call(self.to_out[0], attend(call(self.to_q, hidden), keys, values, self.num_heads))


class FeedForward(nn.Module):
    """Four times as wide inside (GEGLU)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.ModuleList([Gate(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width)])

    def forward(self, hidden: Tensor) -> Tensor:
        """(R, N, W) -> the same."""
        return call(self.net[2], self.net[0](hidden))


class Gate(nn.Module):
    """A linear layer, and another that says how much of it passes."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.proj = nn.Linear(in_features, 2 * out_features)

    def forward(self, hidden: Tensor) -> Tensor:
        """(R, N, W) -> (R, N, W')."""
        both = call(self.proj, hidden)
        half = both.shape[-1] // 2
        return both[..., :half] * gelu(both[..., half:])


def residual_block(plan: UNetPlan, in_channels: int, out_channels: int) -> ResidualBlock:
    """A residual block that is told the timestep."""
    return ResidualBlock(
        in_channels,
        out_channels,
        num_groups=plan.num_groups,
        eps=plan.eps,
        time_width=plan.time_width,
        has_scale=plan.has_scale,
    )
