"""Teaches the text encoder to read before the diffusion begins: from a caption to what its scene holds.

A denoising network learns what words mean only through faint gradients. A few minutes of plain classification give the
text encoder the meaning of every word, synonym and word order first, at a hundredth of the cost.
"""

import logging
from collections.abc import Iterator
from random import Random

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import IterableDataset, get_worker_info
from transformers import CLIPTextModel, CLIPTokenizer

from training.dreamlet.captions import draw_example
from training.dreamlet.clock import RunClock
from training.dreamlet.config import Preset, autocast, device
from training.dreamlet.data import Batch, stream
from training.dreamlet.labels import SCHOOLED, schooled_labels
from training.dreamlet.tokenizer import token_ids

LOG = logging.getLogger("dreamlet")


class Captions(IterableDataset[Batch]):
    """An endless stream of `ids` (N, 77) and `labels` (N, one for each of SCHOOLED)."""

    def __init__(self, tokenizer: CLIPTokenizer, count: int, seed: int) -> None:
        super().__init__()
        self._tokenizer = tokenizer
        self._count = count
        self._seed = seed

    def __iter__(self) -> Iterator[Batch]:
        """Draw for ever."""
        worker = get_worker_info()
        random = Random(f"{self._seed}/{worker.id if worker else 0}")  # noqa: S311 - captions, not secrets
        while True:
            examples = [draw_example(random) for _ in range(self._count)]
            ids = token_ids(self._tokenizer, [caption for _, caption in examples])
            labels = [schooled_labels(scene) for scene, _ in examples]
            yield {"ids": torch.tensor(ids), "labels": torch.tensor(labels)}


def school(text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, preset: Preset, minutes: float) -> float:
    """Train the text encoder, in place, to tell scenes from captions.

    Args:
        text_encoder: fresh.
        tokenizer: its tokenizer.
        preset: what and how.
        minutes: for how long.

    Returns:
        The last loss: nats a caption, summed over the questions. It does not go to 0, for captions leave things open.
    """
    config = preset.text
    heads = nn.ModuleList(nn.Linear(config.width, len(names)) for names in SCHOOLED.values()).to(device())
    parameters = [*text_encoder.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    batches = stream(preset, Captions(tokenizer, config.batch_size, seed=torch.seed() % 2**31))
    clock = RunClock(minutes)
    average, step = 0.0, 0
    text_encoder.train()
    while not clock.is_over:
        batch = next(batches)
        for group in optimizer.param_groups:
            group["lr"] = clock.learning_rate(config.learning_rate)
        with autocast(preset):
            meaning = text_encoder(batch["ids"].to(device())).pooler_output.float()
        labels = batch["labels"].to(device())
        losses = [functional.cross_entropy(head(meaning), labels[:, index]) for index, head in enumerate(heads)]
        loss = torch.stack(losses).sum()
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        average = loss.item() if step == 1 else average + 0.02 * (loss.item() - average)
        if clock.is_due(60):
            LOG.info("schooling %.1f min, step %d, loss %.3f", clock.elapsed_s / 60, step, average)
    LOG.info("schooling done: step %d, loss %.3f", step, average)
    return average
