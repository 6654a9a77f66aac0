"""The judge: a classifier of subject, colour, place and time of a picture, or of each half if it has two subjects.

It is trained on fresh drawings only, never on generated pictures. (Its training is in `train_judge.py`.)
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from training.dreamlet.labels import IGNORED, JUDGED, REGIONS
from training.dreamlet.machine import as_network_input, device


class Judge(nn.Module):
    """A small residual network with one answer for each of JUDGED in each of REGIONS."""

    def __init__(self, width: int) -> None:
        """Build it untrained.

        Args:
            width: channels of the finest level.
        """
        super().__init__()
        self.width = width
        self.features = nn.Sequential(
            nn.Conv2d(3, width, 7, stride=4, padding=3, bias=False),
            nn.BatchNorm2d(width),
            _Residual(width),
            _narrowed(width, 2 * width),
            _Residual(2 * width),
            _Residual(2 * width),
            _narrowed(2 * width, 4 * width),
            _Residual(4 * width),
        )
        self.heads = nn.ModuleList(nn.Linear(8 * width, len(names)) for names in JUDGED.values())

    def forward(self, halved: torch.Tensor) -> list[torch.Tensor]:
        """The scores of every class, a tensor (N, regions, classes) for each of JUDGED.

        Args:
            halved: (N, 3, H/2, W/2) in [-1, 1], pictures at half their size.
        """
        features = self.features(halved).float()
        middle = features.shape[3] // 2
        # The mean says how much of something there is, the maximum that there is any.
        pooled = torch.stack(
            [
                torch.cat([region.mean(dim=(2, 3)), region.amax(dim=(2, 3))], dim=1)
                for region in (features, features[..., :middle], features[..., middle:])
            ],
            dim=1,
        )
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


def _narrowed(before: int, after: int) -> nn.Sequential:
    """Half the side, other channels."""
    return nn.Sequential(nn.ReLU(), nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after))


def halved(images: torch.Tensor) -> torch.Tensor:
    """Pictures of bytes as the judge wants them: (N, 3, H/2, W/2) in [-1, 1]."""
    return functional.avg_pool2d(as_network_input(images), 2)


def save_judge(judge: Judge, path: Path) -> None:
    """Write the weights."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: weights.contiguous() for name, weights in judge.state_dict().items()}, path)


def load_judge(path: Path) -> Judge:
    """A trained judge, ready to be asked."""
    weights = load_file(path)
    judge = Judge(len(weights["features.0.weight"]))
    judge.load_state_dict(weights)
    return judge.to(device()).eval()


@torch.inference_mode()
def answers(judge: Judge, images: torch.Tensor) -> torch.Tensor:
    """What the judge sees.

    Args:
        judge: trained.
        images: (N, 3, H, W), bytes.

    Returns:
        (N, regions, 4), the number of a class for each of REGIONS and each of JUDGED.
    """
    judge.eval()
    return torch.cat(
        [
            torch.stack([scores.argmax(dim=2) for scores in judge(halved(part))], dim=2).cpu()
            for part in torch.split(images, 64)
        ]
    )


def shares_right(given: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """The share of right answers to each question, over all for which it may be asked; `pair`: both subjects right.

    Args:
        given: (N, regions, 4), the judge's answers.
        labels: (N, regions, 4), the truth.
    """
    is_asked, is_right = labels != IGNORED, given == labels
    shares = {
        name: is_right[..., index][is_asked[..., index]].float().mean().item()
        for index, name in enumerate(JUDGED)
        if is_asked[..., index].any()
    }
    is_pair = is_asked[:, REGIONS.index("left"), 0]
    if is_pair.any():
        both = is_right[is_pair, 1:, :2].all(dim=(1, 2)).float()
        shares["pair"] = both.mean().item()
    return shares
