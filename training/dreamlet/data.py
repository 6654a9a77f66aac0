"""Fresh examples for training, drawn by other processes, and the pools on the device that steps draw from.

Drawing takes some 8 ms a picture and core, a training step on a GPU far less: so every picture is used several times,
and the pool is renewed all the while.
"""

import os
from collections.abc import Callable, Iterator
from random import Random
from typing import TypeAlias

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from transformers import CLIPTokenizer

from training.dreamlet.captions import draw_example
from training.dreamlet.config import Preset
from training.dreamlet.drawing.render import render
from training.dreamlet.scenes import Scene
from training.dreamlet.tokenizer import token_ids

Batch: TypeAlias = dict[str, torch.Tensor]
"""Tensors of equal length by name. `images`: (N, 3, H, W) uint8; `ids`: (N, 77) int64; others as the task needs."""

Example: TypeAlias = tuple[Scene, str]
"""A scene and its caption."""


class Drawings(IterableDataset[Batch]):
    """An endless stream of batches of pictures, each batch of one size."""

    def __init__(
        self,
        sizes: tuple[tuple[int, int, float], ...],
        count: int,
        seed: int,
        draw: Callable[[Random], Example],
        finish: Callable[[list[Example]], Batch],
    ) -> None:
        """Describe the stream.

        Args:
            sizes: width, height and share of each size.
            count: pictures in a batch.
            seed: of the whole stream; every worker process gets its own from it.
            draw: draws one scene and its caption.
            finish: what belongs to the examples of a batch beside the pictures: tokens or labels.
        """
        super().__init__()
        self._sizes = sizes
        self._count = count
        self._seed = seed
        self._draw = draw
        self._finish = finish

    def __iter__(self) -> Iterator[Batch]:
        """Draw for ever."""
        worker = get_worker_info()
        random = Random(f"{self._seed}/{worker.id if worker else 0}")  # noqa: S311 - pictures, not secrets
        shares = [share for _, _, share in self._sizes]
        while True:
            ((width, height, _),) = random.choices(self._sizes, shares)
            examples = [self._draw(random) for _ in range(self._count)]
            pictures = [np.asarray(render(scene, width, height)) for scene, _ in examples]
            images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
            yield {"images": images, **self._finish(examples)}


def stream(preset: Preset, drawings: IterableDataset[Batch]) -> Iterator[Batch]:
    """The batches of a stream, drawn by as many processes as the preset has."""
    # One thread each: the processes are the parallelism.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    loader: DataLoader[Batch] = DataLoader(
        drawings,
        batch_size=None,
        num_workers=preset.workers,
        prefetch_factor=4 if preset.workers else None,
        # Tokenizers cannot be pickled, so workers must inherit them.
        multiprocessing_context="fork" if preset.workers else None,
    )
    return iter(loader)


def tokens_of(tokenizer: CLIPTokenizer) -> Callable[[list[Example]], Batch]:
    """A `finish` for `Drawings` that adds the captions as tokens."""

    def finish(examples: list[Example]) -> Batch:
        return {"ids": torch.tensor(token_ids(tokenizer, [caption for _, caption in examples]))}

    return finish


def drawings_with_tokens(preset: Preset, tokenizer: CLIPTokenizer, seed: int) -> Drawings:
    """The stream that diffusion is trained on."""
    return Drawings(preset.sizes, preset.drawn_together, seed, draw_example, tokens_of(tokenizer))


class Pool:
    """Examples of one size on the device. New ones push out the oldest."""

    def __init__(self, capacity: int, device: torch.device) -> None:
        self._capacity = capacity
        self._device = device
        self._tensors: Batch = {}
        self._next = 0
        self.count = 0
        """Examples held."""

    def add(self, batch: Batch) -> None:
        """Put a batch in."""
        length = len(next(iter(batch.values())))
        places = (torch.arange(length) + self._next) % self._capacity
        for name, values in batch.items():
            if name not in self._tensors:
                shape = (self._capacity, *values.shape[1:])
                self._tensors[name] = torch.empty(shape, dtype=values.dtype, device=self._device)
            self._tensors[name][places.to(self._device)] = values.to(self._device)
        self._next = (self._next + length) % self._capacity
        self.count = min(self.count + length, self._capacity)

    def sample(self, count: int) -> Batch:
        """Take examples by chance, with replacement."""
        chosen = torch.randint(self.count, (count,), device=self._device)
        return {name: values[chosen] for name, values in self._tensors.items()}


def as_network_input(images: torch.Tensor) -> torch.Tensor:
    """Pictures of bytes as the networks want them: (N, 3, H, W) in [-1, 1], float32."""
    return images.to(torch.float32) / 127.5 - 1
