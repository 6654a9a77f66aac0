"""Training of the text encoder: predicts a scene's labels from its caption. It is frozen afterwards.

A denoising network learns what words mean only through faint gradients. Some minutes of plain classification give the
text encoder the meaning of every word, synonym and word order first, at a hundredth of the cost. Every token from the
end mark on, and their mean, must tell the whole scene: the UNet reads whichever it likes.
"""

from pathlib import Path
from random import Random

import torch
from torch import nn
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTokenizer

from training.dreamlet.captions import caption_for, full_caption
from training.dreamlet.config import Preset, TextConfig
from training.dreamlet.labels import SCHOOLED, schooled_labels
from training.dreamlet.learning.learner import Learner
from training.dreamlet.learning.loop import Chance
from training.dreamlet.machine import autocast, device
from training.dreamlet.networks import new_text_encoder
from training.dreamlet.scenes import draw_held_out_scene, draw_said, draw_scene
from training.dreamlet.tokenizer import token_ids, train_tokenizer

WEIGHTS = {"first subject": 2.0, "first colour": 2.0, "place": 1.5}
"""Of the questions that matter most; 1 for the others."""
EMPTY_SHARE = 0.03
"""Of the captions, empty ones."""
TOKENS_ASKED = 3
"""Of each caption, by chance, beside the end mark and the mean."""
TEST_SEED = 900_004


class Reader(nn.Module):
    """The text encoder with an answer for each of SCHOOLED at every token."""

    def __init__(self, encoder: CLIPTextModel, width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleList(nn.Linear(width, len(names)) for names in SCHOOLED.values())

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """What each token says, (N, L, D).

        Args:
            ids: (N, L).
        """
        hidden: torch.Tensor = self.encoder(ids).last_hidden_state
        return hidden


class TextStage:
    """The text encoder under training. Its result is `text_encoder/` and `tokenizer/`."""

    name = "text"

    def __init__(self, preset: Preset, tokenizer: CLIPTokenizer | None = None) -> None:
        self.config: TextConfig = preset.text
        self.training = self.config.training
        self._preset = preset
        self.tokenizer = tokenizer or train_tokenizer()
        self.reader = Reader(new_text_encoder(self.config, self.tokenizer), self.config.width).to(device()).train()
        self.learner = Learner(self.reader, self.training)

    def loss(self, step: int, chance: Chance) -> torch.Tensor:
        """Nats a caption, summed over the questions; not 0 in the end, for captions leave things open."""
        is_full = step % 8 == 0
        count = max(1, self.training.batch_size // 2) if is_full else self.training.batch_size
        ids, labels = self._captions(chance.random, count)
        ids = ids if is_full else ids[:, : self.config.short]
        with autocast(self._preset):
            hidden = self.reader(ids.to(device())).float()
        told = _tokens_that_tell(hidden, ids, self.tokenizer.eos_token_id, chance)
        wanted = labels.to(device()).repeat_interleave(told.shape[1], 0)
        losses = [
            WEIGHTS.get(name, 1.0) * functional.cross_entropy(head(told.flatten(0, 1)), wanted[:, index])
            for index, (name, head) in enumerate(zip(SCHOOLED, self.reader.heads, strict=True))
        ]
        return torch.stack(losses).sum()

    def export(self, folder: Path) -> str:
        """Write the average of the weights, and the tokenizer."""
        with self.learner.average.in_place():
            self.reader.encoder.save_pretrained(folder / "text_encoder")
            shares = self.score(300)
        self.tokenizer.save_pretrained(folder / "tokenizer")
        return "Right on held-out captions: " + ", ".join(f"{name} {share:.1%}" for name, share in shares.items())

    @torch.inference_mode()
    def score(self, count: int) -> dict[str, float]:
        """The shares of right answers from the mean of the last tokens, on captions that say everything."""
        random = Random(TEST_SEED)  # noqa: S311 - captions, not secrets
        scenes = [draw_held_out_scene(random) for _ in range(count)]
        ids = torch.tensor(token_ids(self.tokenizer, [full_caption(scene, random) for scene in scenes]))
        labels = torch.tensor([schooled_labels(scene) for scene in scenes])
        mean = self.reader(ids.to(device()))[:, self.config.short :].float().mean(dim=1)
        return {
            name: (head(mean).argmax(dim=1).cpu() == labels[:, index]).float().mean().item()
            for index, (name, head) in enumerate(zip(SCHOOLED, self.reader.heads, strict=True))
        }

    def _captions(self, random: Random, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        captions, labels = [], []
        for _ in range(count):
            said = draw_said(random, self._preset.shares)
            scene = draw_scene(random, said, self._preset.shares)
            captions.append("" if random.random() < EMPTY_SHARE else caption_for(scene, said, random))
            labels.append(schooled_labels(scene))
        return torch.tensor(token_ids(self.tokenizer, captions)), torch.tensor(labels)


def _tokens_that_tell(hidden: torch.Tensor, ids: torch.Tensor, end: int, chance: Chance) -> torch.Tensor:
    """The end mark, some tokens behind it, and the mean of all of them: (N, 2 + TOKENS_ASKED, D).

    Args:
        hidden: (N, L, D).
        ids: (N, L), on the CPU; without an end mark the last token stands for it.
        end: the number of the end mark.
        chance: chooses the tokens.
    """
    length = ids.shape[1]
    is_end = ids == end
    first = torch.where(is_end.any(dim=1), is_end.int().argmax(dim=1), length - 1)
    along = torch.rand((len(ids), TOKENS_ASKED), generator=chance.generator)
    later = first[:, None] + ((length - first)[:, None] * along).long()
    places = torch.cat([first[:, None], later], dim=1).clamp(max=length - 1).to(hidden.device)
    chosen = hidden.gather(1, places[..., None].expand(-1, -1, hidden.shape[2]))
    is_after = (torch.arange(length) >= first[:, None]).float().to(hidden.device)
    mean = (hidden * is_after[..., None]).sum(dim=1, keepdim=True) / is_after.sum(dim=1)[:, None, None]
    return torch.cat([chosen, mean], dim=1)
