"""Training data: shards of drawings for each part, with captions or labels."""

from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from training.dreamlet.config import Preset
from training.dreamlet.drawing.render import CELL, Box, render, render_with_boxes
from training.dreamlet.labels import judged_labels
from training.dreamlet.pool import Shard
from training.dreamlet.scenes import (
    EVERYTHING,
    Said,
    Scene,
    Shares,
    draw_held_out_scene,
    draw_said,
    draw_scene,
)


def stacked(pictures: list[Image.Image]) -> torch.Tensor:
    """Pictures of one size as (N, 3, H, W), bytes."""
    return torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2).contiguous()


@dataclass(frozen=True, slots=True)
class TrainingDrawings:
    """Makes the shards of `images` (N, 3, H, W) and `cells` (N, H/16, W/16), where subjects are; with examples."""

    seed: int
    count: int
    sizes: tuple[tuple[int, int, float], ...]
    shares: Shares

    @classmethod
    def of(cls, preset: Preset, seed: int) -> "TrainingDrawings":
        """Those of a preset."""
        return cls(seed, preset.shard, preset.sizes, preset.shares)

    def __call__(self, number: int) -> Shard:
        """Draw the shard of a number."""
        random = Random(f"{self.seed}/drawings/{number}")  # noqa: S311 - pictures, not secrets
        ((width, height, _),) = random.choices(self.sizes, [share for *_, share in self.sizes])
        pictures, cells, examples = [], [], []
        for _ in range(self.count):
            said = draw_said(random, self.shares)
            scene = draw_scene(random, said, self.shares)
            picture, boxes = render_with_boxes(scene, width, height)
            pictures.append(picture)
            cells.append(torch.from_numpy(subject_cells(boxes, width, height)))
            examples.append((scene, said))
        return Shard({"images": stacked(pictures), "cells": torch.stack(cells)}, examples)


@dataclass(frozen=True, slots=True)
class JudgedDrawings:
    """Makes the shards that the judge learns from: `images` at half size and `labels` (N, 3, 4)."""

    seed: int
    count: int
    pair_share: float

    def __call__(self, number: int) -> Shard:
        """Draw the shard of a number."""
        random = Random(f"{self.seed}/judged/{number}")  # noqa: S311 - pictures, not secrets
        scenes = [self._scene(random) for _ in range(self.count)]
        return Shard(
            {
                "images": stacked([render(scene).reduce(2) for scene in scenes]),
                "labels": torch.tensor([judged_labels(scene) for scene in scenes]),
            }
        )

    def _scene(self, random: Random) -> Scene:
        """Trios held out from the model's training are no secret to the judge, which never sees what is generated."""
        roll = random.random()
        if roll < self.pair_share:
            said = Said(subjects=2, colour=True, place=True, time=True, style=False)
            return draw_scene(random, said)
        return draw_held_out_scene(random) if roll > 0.5 else draw_scene(random, EVERYTHING)


def subject_cells(boxes: list[Box], width: int, height: int) -> NDArray[np.bool_]:
    """Which latents hold a part of a subject.

    Args:
        boxes: of the subjects' shapes, in units of the picture's shorter side.
        width: of the picture, pixels.
        height: of the picture, pixels.

    Returns:
        (H/16, W/16), the upper row first.
    """
    rows, columns = -(-height // CELL), -(-width // CELL)
    cells = np.zeros((rows, columns), dtype=np.bool_)
    per_unit = min(width, height) / CELL
    for left, bottom, right, top in boxes:
        first, last = max(0, int(left * per_unit)), min(columns - 1, int(right * per_unit))
        upper, lower = max(0, int(rows - top * per_unit)), min(rows - 1, int(rows - bottom * per_unit))
        cells[upper : lower + 1, first : last + 1] = True
    return cells
