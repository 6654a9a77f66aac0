"""The training loop: steps, checkpoints, decay, result.

All chance in a step comes from its number, so a training that was interrupted goes on exactly as if it had not been.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Protocol

import torch

from training.dreamlet.learning.learner import Learner
from training.dreamlet.learning.progress import Progress
from training.dreamlet.learning.run_folder import RunFolder, save_atomically
from training.dreamlet.learning.schedule import Training

LOG = logging.getLogger("dreamlet")


class Stage(Protocol):
    """One part of the model under training."""

    name: str
    training: Training
    learner: Learner

    def loss(self, step: int, chance: "Chance") -> torch.Tensor:
        """The loss of one step on fresh examples; a scalar."""

    def export(self, folder: Path) -> str:
        """Write what the training has made so far; returns its figures in a line."""


class Chance:
    """The random numbers of one step."""

    def __init__(self, seed: int, name: str, step: int) -> None:
        self.random = Random(f"{seed}/{name}/{step}")  # noqa: S311 - pictures and noise, not secrets
        self.generator = torch.Generator().manual_seed(self.random.getrandbits(63))
        """On the CPU, so that every device sees the same numbers."""


def run(
    stage: Stage,
    folder: RunFolder,
    seed: int = 0,
    checkpoint_every_s: float = 600.0,
    is_interrupted: Callable[[], bool] = lambda: False,
    progress: Progress | None = None,
) -> bool:
    """Train until the last step, or until asked to stop; goes on from the folder's checkpoint.

    Args:
        stage: what to train.
        folder: of this training alone.
        seed: of all chance.
        checkpoint_every_s: seconds between checkpoints.
        is_interrupted: asked after every step; True saves and stops.
        progress: counts the steps; None for one that logs every minute.

    Returns:
        Whether the training is finished.
    """
    training, learner = stage.training, stage.learner
    progress = progress or Progress(stage.name, training.batch_size)
    device = next(learner.network.parameters()).device
    step, decay_from = _resume(learner, folder, device)
    planned_decay = max(0, training.steps - training.decay_steps)
    if decay_from is None and not folder.is_asked("decay") and step >= planned_decay == folder.last_decay_from():
        LOG.info("%s: all %d steps are done; ask for more steps to go on", stage.name, training.steps)
        return True
    saved_at = time.monotonic()
    while True:
        if decay_from is None and (step >= planned_decay or folder.is_asked("decay")):
            _save(learner, folder.checkpoint, step, None)
            decay_from = step
            LOG.info("%s: decay from step %d; the state before it is %s", stage.name, step, folder.checkpoint)
        if decay_from is not None and step - decay_from >= training.decay_steps:
            figures = stage.export(folder.result)
            folder.finish(step, decay_from)
            LOG.info("%s: finished at step %d. %s", stage.name, step, figures)
            return True
        loss = stage.loss(step, Chance(seed, stage.name, step))
        learner.step(loss, training.factor(step, decay_from))
        step += 1
        progress.count(loss.item())
        progress.report_if_due(step, training.steps if decay_from is None else decay_from + training.decay_steps)
        must_stop = folder.is_asked("stop") or is_interrupted()
        if must_stop or time.monotonic() - saved_at >= checkpoint_every_s:
            _save(learner, folder.checkpoint if decay_from is None else folder.branch, step, decay_from)
            saved_at = time.monotonic()
        if must_stop:
            folder.answer("stop")
            LOG.info("%s: stopped at step %d of %d", stage.name, step, training.steps)
            return False


def _resume(learner: Learner, folder: RunFolder, device: torch.device) -> tuple[int, int | None]:
    """The step to go on from, and where the decay started."""
    state = folder.load(device)
    if state is None:
        return 0, None
    learner.restore(state["learner"])
    LOG.info("resumed at step %d", state["step"])
    return state["step"], state["decay_from"]


def _save(learner: Learner, path: Path, step: int, decay_from: int | None) -> None:
    save_atomically({"learner": learner.state(), "step": step, "decay_from": decay_from}, path)
