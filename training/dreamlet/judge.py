"""The judge: reads subject, colour, place and time off a picture. Trained on fresh drawings only, never on generated.

`python -m training.dreamlet.judge --minutes 5 --out judge.safetensors`
"""

import argparse
import json
import logging
from pathlib import Path
from random import Random

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from training.dreamlet.captions import full_caption
from training.dreamlet.clock import RunClock
from training.dreamlet.config import Preset, autocast, begin, device, load_preset, memory_format, to_device
from training.dreamlet.data import Batch, Drawings, Example, Pool, as_network_input, stream
from training.dreamlet.labels import IGNORED, JUDGED, judged_labels
from training.dreamlet.scenes import EVERYTHING, Scene, draw_held_out_scene, draw_scene

LOG = logging.getLogger("dreamlet")
TEST_SEED = 900_002
REPORT_EVERY_S = 60


class Judge(nn.Module):
    """A small residual network with one answer for each of JUDGED. Looks at half the size: (N, 3, H/2, W/2)."""

    def __init__(self) -> None:
        super().__init__()
        widths = (32, 64, 128, 192)
        layers: list[nn.Module] = [
            nn.Conv2d(3, widths[0], 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(widths[0]),
        ]
        for before, after in zip(widths, (*widths[1:], 256), strict=True):
            layers += [nn.ReLU(), nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after)]
            layers.append(_Residual(after))
        self.features = nn.Sequential(*layers)
        self.heads = nn.ModuleList(nn.Linear(512, len(names)) for names in JUDGED.values())

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The scores of every class, a tensor (N, classes) for each of JUDGED.

        Args:
            images: (N, 3, H, W) in [-1, 1], at full size.
        """
        features = self.features(functional.avg_pool2d(images, 2))
        # The mean says how much of something there is, the maximum that there is any.
        pooled = torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=1).float()
        return [head(pooled) for head in self.heads]


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = features + self.branch(features)
        return result


def train(preset: Preset, minutes: float, out: Path, test_pictures: int = 1024) -> dict[str, float]:
    """Train for so many minutes, save the weights, and return the shares of right answers on fresh drawings."""
    config = preset.judge
    judge = to_device(Judge()).train()
    optimizer = torch.optim.AdamW(judge.parameters(), lr=config.learning_rate, weight_decay=0.02)
    drawn = stream(preset, _judged_drawings(preset, seed=torch.seed() % 2**31))
    pool = Pool(config.pool, device())
    while pool.count < min(config.pool, 10 * config.batch_size):
        pool.add(next(drawn))
    clock = RunClock(minutes)
    step, average = 0, 0.0
    while not clock.is_over:
        pool.add(next(drawn))
        for group in optimizer.param_groups:
            group["lr"] = clock.learning_rate(config.learning_rate)
        batch = pool.sample(config.batch_size)
        with autocast(preset):
            answers = judge(_disturbed(as_network_input(batch["images"])))
        losses = [
            functional.cross_entropy(answer, batch["labels"][:, index], ignore_index=IGNORED, label_smoothing=0.02)
            for index, answer in enumerate(answers)
        ]
        loss = torch.stack(losses).sum()
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        step += 1
        average = loss.item() if step == 1 else average + 0.02 * (loss.item() - average)
        if clock.is_due(REPORT_EVERY_S):
            LOG.info("judge %.1f min, step %d, loss %.3f", clock.elapsed_s / 60, step, average)
            save_file(judge.state_dict(), out)
    save_file(judge.state_dict(), out)
    return score_on_drawings(judge, test_pictures)


def load_judge(path: Path) -> Judge:
    """A trained judge, ready to be asked."""
    judge = Judge()
    judge.load_state_dict(load_file(path))
    return judge.to(device()).eval()


def score_on_drawings(judge: Judge, count: int) -> dict[str, float]:
    """The shares of right answers on fresh drawings of held-out scenes, in the default style.

    Args:
        judge: trained.
        count: of drawings.
    """
    batches = iter(Drawings(((256, 256, 1.0),), 16, TEST_SEED, _draw_held_out, _finish))
    images: list[torch.Tensor] = []
    labels: list[torch.Tensor] = []
    while sum(len(part) for part in labels) < count:
        batch = next(batches)
        images.append(batch["images"])
        labels.append(batch["labels"])
    return score(judge, torch.cat(images)[:count], torch.cat(labels)[:count])


@torch.inference_mode()
def score(judge: Judge, images: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """The share of right answers to each question, over the pictures for which it may be asked.

    Args:
        judge: trained.
        images: (N, 3, H, W), bytes.
        labels: (N, 4) in the order of JUDGED.
    """
    judge.eval()
    answers = [
        torch.stack([answer.argmax(dim=1) for answer in judge(as_network_input(part.to(device())))], dim=1).cpu()
        for part in torch.split(images, 64)
    ]
    given = torch.cat(answers)
    shares = {}
    for index, name in enumerate(JUDGED):
        is_asked = labels[:, index] != IGNORED
        shares[name] = (given[is_asked, index] == labels[is_asked, index]).float().mean().item()
    return shares


def _disturbed(images: torch.Tensor) -> torch.Tensor:
    """Pictures mirrored, a little noisy, and half of the time a little soft, as pictures from a decoder are."""
    if torch.rand(()) < 0.5:
        images = images.flip(3)
    if torch.rand(()) < 0.5:
        images = functional.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
    return (images + 0.03 * torch.randn_like(images)).contiguous(memory_format=memory_format())


def _draw_any(random: Random) -> Example:
    """A scene of one subject; trios held out from the model's training are no secret to the judge."""
    if random.random() < 0.5:
        return _draw_held_out(random)
    drawn = draw_scene(random, EVERYTHING)
    return Scene(drawn.subjects, drawn.place, drawn.time, drawn.style, seed=drawn.seed), ""


def _draw_held_out(random: Random) -> Example:
    scene = draw_held_out_scene(random)
    return scene, full_caption(scene, random)


def _finish(examples: list[Example]) -> Batch:
    return {"labels": torch.tensor([judged_labels(scene) for scene, _ in examples])}


def _judged_drawings(preset: Preset, seed: int) -> Drawings:
    width, height, _ = preset.sizes[0]
    return Drawings(((width, height, 1.0),), preset.drawn_together, seed, _draw_any, _finish)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True, help="file for the weights")
    options = parser.parse_args()
    begin()
    LOG.info(
        "judge on fresh drawings: %s", json.dumps(train(load_preset(options.preset), options.minutes, options.out))
    )


if __name__ == "__main__":
    main()
