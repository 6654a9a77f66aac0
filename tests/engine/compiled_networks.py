"""Tiny networks of random weights, as a backend is handed them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.backends.base import NetworkFiles
from engine.models.examples import unet_examples
from engine.models.options import Options
from engine.models.unet_plan import UNetPlan
from engine.networks.unet import UNet
from tests.engine.test_networks import UNETS

__all__ = ["EXAMPLES", "KIND", "plan_of", "unet_files", "unet_inputs"]


def plan_of(config: dict[str, Any]) -> UNetPlan:
    return UNetPlan.read(Options(Path("config.json"), config))


KIND = "like dreamlet"
EXAMPLES = unet_examples(plan_of(UNETS[KIND]))

_DRAWING = threading.Lock()
"""torch's seed is one for all threads."""


def unet_files(folder: Path, *, kind: str = KIND, seed: int = 0, more: dict[str, Any] | None = None) -> NetworkFiles:
    """A UNet whose weights follow from the number that its file holds."""
    config: dict[str, Any] = UNETS[kind] | (more or {})
    weights = folder / "unet.safetensors"
    weights.write_text(str(seed))

    def load() -> nn.Module:
        with _DRAWING:
            torch.manual_seed(int(weights.read_text()))
            return UNet(plan_of(config)).eval().requires_grad_(requires_grad=False)

    return NetworkFiles(name="unet", config=config, weights=weights, load=load)


def unet_inputs(unet: UNet, *, rows: int = 2, height: int = 8, width: int = 8, tokens: int = 77) -> tuple[Tensor, ...]:
    """Latents, times and prompts; each row's are its own, and the same whatever the other numbers are."""
    generator = torch.Generator().manual_seed(7)
    latents = torch.randn(rows, unet.plan.in_channels, height, width, generator=generator)
    prompts = unet.pack_prompt(torch.randn(rows, tokens, unet.plan.text_width, generator=generator))
    times = unet.pack_time(torch.rand(rows, generator=generator) * 999)
    return latents, times, prompts
