"""The training of the judge, on fresh drawings that are shifted, blurred and made noisy as a decoder would."""

import json
from pathlib import Path
from random import Random

import torch
from torch.nn import functional

from training.dreamlet.config import JudgeConfig, Preset
from training.dreamlet.drawing.render import render
from training.dreamlet.drawings import JudgedDrawings, stacked
from training.dreamlet.judge import Judge, answers, save_judge, shares_right
from training.dreamlet.labels import IGNORED, judged_labels
from training.dreamlet.learning.learner import Learner
from training.dreamlet.learning.loop import Chance
from training.dreamlet.machine import as_network_input, autocast, to_device
from training.dreamlet.pool import Pool, Supply
from training.dreamlet.scenes import Said, Scene, draw_held_out_scene, draw_scene

TEST_SEED = 900_002
SHIFT = 6
"""Pixels at half size by which pictures are moved at most."""


class JudgeStage:
    """The judge under training."""

    name = "judge"

    def __init__(self, preset: Preset, seed: int, test_pictures: int = 600) -> None:
        self.config: JudgeConfig = preset.judge
        self.training = self.config.training
        self._preset = preset
        self._test_pictures = test_pictures
        self.judge = to_device(Judge(self.config.width)).train()
        self.learner = Learner(self.judge, self.training, for_adamw=("features.0", "heads"))
        drawings = JudgedDrawings(seed, preset.shard, self.config.pair_share)
        self._pool = Pool(Supply(drawings, preset.workers).get, preset.shard, self.config.pool)

    def loss(self, step: int, chance: Chance) -> torch.Tensor:
        """Of the answers to every question that may be asked."""
        self._pool.grow_to(self.config.first_pool + self.config.fresh * step)
        batch = self._pool.sample(chance.random, self.training.batch_size).tensors
        images = _disturbed(as_network_input(batch["images"]), chance)
        labels = batch["labels"].to(images.device)
        with autocast(self._preset):
            scores = self.judge(images)
        losses = [
            functional.cross_entropy(
                answer.flatten(0, 1).float(), labels[..., index].flatten(), ignore_index=IGNORED, label_smoothing=0.02
            )
            for index, answer in enumerate(scores)
        ]
        return torch.stack(losses).sum()

    def export(self, folder: Path) -> str:
        """Write `judge.safetensors`: the weights as they are, since the statistics of their norms are not averaged."""
        save_judge(self.judge, folder / "judge.safetensors")
        shares = score_on_drawings(self.judge, self._test_pictures)
        self.judge.train()
        return f"Right on fresh drawings: {json.dumps({name: round(share, 4) for name, share in shares.items()})}"


def score_on_drawings(judge: Judge, count: int) -> dict[str, float]:
    """The shares of right answers on fresh drawings in the default style: what the judge can see at all.

    Args:
        judge: trained.
        count: of held-out scenes with one subject; a quarter as many with two are added.
    """
    random = Random(TEST_SEED)  # noqa: S311 - pictures, not secrets
    scenes = [draw_held_out_scene(random) for _ in range(count)]
    shares = _score(judge, scenes)
    said = Said(subjects=2, colour=True, place=True, time=True, style=False)
    pairs = _score(judge, [draw_scene(random, said) for _ in range(max(1, count // 4))])
    return {**shares, "pair": pairs["pair"]}


def _score(judge: Judge, scenes: list[Scene]) -> dict[str, float]:
    given = torch.cat(
        [answers(judge, stacked([render(scene) for scene in scenes[at : at + 64]])) for at in range(0, len(scenes), 64)]
    )
    return shares_right(given, torch.tensor([judged_labels(scene) for scene in scenes]))


def _disturbed(images: torch.Tensor, chance: Chance) -> torch.Tensor:
    """Pictures moved, a little noisy, lighter or darker, and half of the time soft, as those of a decoder are.

    Args:
        images: (N, 3, H/2, W/2) in [-1, 1].
        chance: of the step.
    """
    random, generator = chance.random, chance.generator
    height, width = images.shape[2:]
    top, left = random.randint(0, 2 * SHIFT), random.randint(0, 2 * SHIFT)
    padded = functional.pad(images, (SHIFT,) * 4, mode="replicate")
    images = padded[..., top : top + height, left : left + width]
    roll = random.random()
    if roll < 0.25:
        images = functional.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
    elif roll < 0.5:
        small = functional.avg_pool2d(images, 2)
        images = functional.interpolate(small, size=(height, width), mode="bilinear", align_corners=False)
    tint = 0.06 * torch.randn((len(images), 3, 1, 1), generator=generator)
    noise = 0.05 * random.random() * torch.randn(images.shape, generator=generator)
    return (images + (tint + noise).to(images.device)).contiguous(memory_format=torch.channels_last)
