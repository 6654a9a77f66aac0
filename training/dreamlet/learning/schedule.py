"""Learning rate schedule: warm-up, constant, decay to zero."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Training:
    """The optimizers and the length of one training."""

    batch_size: int
    muon_rate: float
    """Learning rate of Muon, which trains matrices and kernels; 0 gives them to AdamW too."""
    adamw_rate: float
    """Learning rate of AdamW, which trains everything else."""
    average: float
    """Decay of the moving average of the weights; the average is what is shipped."""
    steps: int
    warm_up_steps: int
    decay_steps: int
    """The last steps, over which the learning rate falls to zero. They may be started earlier."""
    max_gradient_norm: float = 0.0
    """0 for no limit."""

    def factor(self, step: int, decay_from: int | None) -> float:
        """What the learning rates are multiplied by.

        Args:
            step: steps already taken.
            decay_from: the step at which the decay started; None before that.
        """
        if decay_from is not None:
            return max(0.0, 1 - (step - decay_from) / self.decay_steps)
        return min(1.0, (step + 1) / self.warm_up_steps)
