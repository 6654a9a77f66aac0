"""Shards of latents on disk: each is drawn and encoded once, however often a training is interrupted."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny
from safetensors import safe_open
from safetensors.torch import save_file

from training.dreamlet.config import Preset
from training.dreamlet.drawings import TrainingDrawings
from training.dreamlet.fused_autoencoder import FusedAutoencoder
from training.dreamlet.machine import as_network_input, autocast, to_device
from training.dreamlet.pool import Shard, Supply
from training.dreamlet.scenes import Said, Scene, Subject

ENCODED_TOGETHER = 32


class LatentShards:
    """Makes shards of `latents` (N, 16, H/16, W/16), float16 of unit variance, and `cells`; with their examples."""

    def __init__(self, preset: Preset, seed: int, autoencoder: AutoencoderTiny, folder: Path) -> None:
        self._preset = preset
        self._folder = folder
        self._scale = float(autoencoder.config.scaling_factor)
        self._encoder = to_device(FusedAutoencoder(autoencoder.float())).eval().requires_grad_(requires_grad=False)
        self._supply = Supply(TrainingDrawings.of(preset, seed), preset.workers)
        self._keep = -(-preset.unet.pool // preset.shard)

    def __call__(self, number: int) -> Shard:
        """Read the shard of a number, or draw and encode it."""
        path = self._folder / f"{number:06}.safetensors"
        if path.exists():
            return read_shard(path)
        drawn = self._supply.get(number)
        shard = Shard(
            {"latents": self.encoded(drawn.tensors["images"]), "cells": drawn.tensors["cells"]}, drawn.examples
        )
        write_shard(shard, path)
        (self._folder / f"{number - self._keep:06}.safetensors").unlink(missing_ok=True)
        return shard

    @torch.inference_mode()
    def encoded(self, images: torch.Tensor) -> torch.Tensor:
        """Pictures of bytes as scaled latents, float16, on the CPU."""
        with autocast(self._preset):
            parts = [
                self._encoder.encode(as_network_input(part)).float().cpu()
                for part in torch.split(images, ENCODED_TOGETHER)
            ]
        return (torch.cat(parts) * self._scale).half().contiguous()


def write_shard(shard: Shard, path: Path) -> None:
    """Write a shard, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    examples = json.dumps([{"scene": asdict(scene), "said": asdict(said)} for scene, said in shard.examples])
    partial = path.with_suffix(".partial")
    save_file(shard.tensors, partial, metadata={"examples": examples})
    partial.replace(path)


def read_shard(path: Path) -> Shard:
    """Read what `write_shard` wrote."""
    # safetensors' types say that `safe_open` is no context manager and give no metadata.
    opened: Callable[..., object] = safe_open
    with opened(path, framework="pt") as file:  # type: ignore[attr-defined]
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        examples = json.loads(file.metadata()["examples"])
    return Shard(tensors, [(_scene(example["scene"]), Said(**example["said"])) for example in examples])


def _scene(values: dict[str, Any]) -> Scene:
    subjects = tuple(Subject(**subject) for subject in values["subjects"])
    return Scene(**{**values, "subjects": subjects})
