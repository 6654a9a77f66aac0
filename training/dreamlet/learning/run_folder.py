"""The files of a training run: checkpoints, stop and decay requests, result. All written atomically.

`checkpoint.pt` is the training at full learning rate. A decay is a branch of it with a checkpoint of its own,
`decay.pt`: when it ends, `checkpoint.pt` still is where training can go on.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


def save_atomically(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint so that a crash at any moment leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where a training keeps itself."""

    root: Path

    @property
    def checkpoint(self) -> Path:
        """The training at full learning rate."""
        return self.root / "checkpoint.pt"

    @property
    def branch(self) -> Path:
        """The decay that has been started; absent without one."""
        return self.root / "decay.pt"

    @property
    def result(self) -> Path:
        """What the training makes, from the average of the weights."""
        return self.root / "result"

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """The state to go on from: the decay's if one has been started; None before the first checkpoint."""
        for path in (self.branch, self.checkpoint):
            if path.exists():
                state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
                return state
        return None

    def ask(self, request: str) -> None:
        """Ask the training that works here for `decay` or `stop`; it answers after its step."""
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / request).touch()

    def is_asked(self, request: str) -> bool:
        """Whether that has been asked for."""
        return (self.root / request).exists()

    def answer(self, request: str) -> None:
        """Take the request away: it has been met."""
        (self.root / request).unlink(missing_ok=True)

    def finish(self, step: int, decay_from: int) -> None:
        """Note a decay that has ended, and drop its checkpoint."""
        text = json.dumps({"step": step, "decay_from": decay_from}) + "\n"
        (self.root / "finished.json").write_text(text, encoding="utf-8")
        self.branch.unlink(missing_ok=True)
        self.answer("decay")

    def last_decay_from(self) -> int | None:
        """The step at which the last finished decay started."""
        path = self.root / "finished.json"
        if not path.exists():
            return None
        start: int = json.loads(path.read_text(encoding="utf-8"))["decay_from"]
        return start
