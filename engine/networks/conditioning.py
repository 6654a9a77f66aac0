"""What the UNet is given beside latents and prompt: timestep, guidance scale, sizes, the prompt as one vector."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from engine.networks.layers import JoinedLinear, attend, call, fresh

if TYPE_CHECKING:
    from engine.models.unet_plan import UNetPlan

__all__ = ["GuidedTimeEmbedding", "SizeAddition", "TextAddition", "TimeEmbedding", "time_embedding", "waves"]


def waves(numbers: Tensor, plan: UNetPlan, width: int = 0) -> Tensor:
    """(N,) -> (N, width), float32: sines and cosines of many wavelengths; as wide as the first block by default."""
    half = (width or plan.channels[0]) // 2
    # diffusers' order of operations: a float32 angle of 999 shows each of its roundings.
    exponents = -math.log(10_000) * torch.arange(half, dtype=torch.float32, device=numbers.device)
    angles = numbers[:, None].float() * torch.exp(exponents / (half - plan.frequency_shift))
    parts = [angles.cos(), angles.sin()] if plan.cosines_first else [angles.sin(), angles.cos()]
    return torch.cat(parts, dim=-1)


class TimeEmbedding(nn.Module):
    """Two linear layers."""

    def __init__(self, in_features: int, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(in_features, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, F) -> (N, E)."""
        return call(self.linear_2, silu(call(self.linear_1, inputs)))


class GuidedTimeEmbedding(TimeEmbedding):
    """Two linear layers, of the timestep and of the guidance scale."""

    def __init__(self, plan: UNetPlan) -> None:
        super().__init__(plan.channels[0], plan.time_width)
        self.cond_proj = nn.Linear(plan.guidance_width, plan.channels[0], bias=False)

    def forward(self, inputs: Tensor, guidance: Tensor) -> Tensor:  # type: ignore[override] # its own inputs
        """(N, F) and (1, G) -> (N, E)."""
        return super().forward(inputs + call(self.cond_proj, guidance))


def time_embedding(plan: UNetPlan) -> TimeEmbedding:
    """As the UNet's configuration wants it: with the guidance scale, or without."""
    return GuidedTimeEmbedding(plan) if plan.guidance_width else TimeEmbedding(plan.channels[0], plan.time_width)


class SizeAddition(TimeEmbedding):
    """Stable Diffusion XL: the pooled prompt and six numbers, the picture's sizes and what was cut off."""

    def __init__(self, plan: UNetPlan) -> None:
        super().__init__(plan.addition_input, plan.time_width)
        self.plan = plan

    def forward(self, pooled: Tensor, sizes: Tensor) -> Tensor:  # type: ignore[override] # its own inputs
        """(R, P) and (R, 6) -> (R, E)."""
        numbers = waves(sizes.flatten(), self.plan, self.plan.size_width).reshape(sizes.shape[0], -1)
        return super().forward(torch.cat([pooled, numbers.to(pooled.dtype)], dim=-1))


class TextAddition(nn.Module):
    """models/dreamlet: the prompt's embeddings, pooled by attention into one vector."""

    def __init__(self, plan: UNetPlan) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(plan.text_width)
        self.pool = AttentionPooling(plan.text_width, plan.addition_heads)
        self.proj = nn.Linear(plan.text_width, plan.time_width)
        self.norm2 = nn.LayerNorm(plan.time_width)

    def forward(self, embeds: Tensor) -> Tensor:
        """(R, L, D) -> (R, E)."""
        output: Tensor = self.norm2(call(self.proj, self.pool(self.norm1(embeds))))
        return output


class AttentionPooling(nn.Module):
    """The mean of all tokens asks all of them, itself included."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.positional_embedding = nn.Parameter(fresh(1, width, width**-0.5))
        self.q_proj = nn.Linear(width, width)
        self.kv_proj = JoinedLinear(("k_proj", "v_proj"), width, width, bias=True)

    def forward(self, tokens: Tensor) -> Tensor:
        """(R, L, D) -> (R, D)."""
        mean = tokens.mean(dim=1, keepdim=True) + self.positional_embedding
        keys, values = self.kv_proj.split(call(self.kv_proj, torch.cat([mean, tokens], dim=1)))
        return attend(call(self.q_proj, mean), keys, values, self.num_heads)[:, 0]
