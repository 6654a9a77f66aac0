"""Muon: steps whose every direction has the same length (Jordan et al., 2024). For matrices and kernels."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration that brings all singular values near 1, from the paper."""


class Muon(torch.optim.Optimizer):
    """Momentum, then the nearest matrix with equal singular values. Matrices of one shape are handled together."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(list(parameters), {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # no loss is asked for
        """Take one step."""
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            updates: dict[tuple[int, int], list[tuple[torch.Tensor, torch.Tensor]]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shape = (parameter.shape[0], parameter.numel() // parameter.shape[0])
                    update = self._with_momentum(parameter, parameter.grad, group["momentum"])
                    updates[shape].append((parameter, update))
            for (rows, columns), same in updates.items():
                directions = orthogonalised(torch.stack([update.reshape(rows, columns) for _, update in same]))
                length = max(1.0, rows / columns) ** 0.5
                for (parameter, _), direction in zip(same, directions, strict=True):
                    parameter.add_(direction.view(parameter.shape), alpha=-group["lr"] * length)

    def _with_momentum(self, parameter: torch.nn.Parameter, gradient: torch.Tensor, momentum: float) -> torch.Tensor:
        """Nesterov's: the gradient, pulled towards the average that it has just changed."""
        state: dict[str, Any] = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(gradient, 1 - momentum)
        pulled: torch.Tensor = gradient.lerp(state["momentum"], momentum)
        return pulled


def orthogonalised(matrices: torch.Tensor, iterations: int = 5) -> torch.Tensor:
    """Each matrix with its singular values brought near 1 (0.7 to 1.2).

    The iteration is done on the matrices' small square products X Xᵀ: each step multiplies X by a polynomial of the
    product, so that X itself, which is up to eighteen times as long, is multiplied only once, at the end.

    Args:
        matrices: (N, rows, columns), float32.
        iterations: of Newton and Schulz.
    """
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if is_tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    square = x @ x.mT
    polynomial = factor = _polynomial(square)
    for _ in range(iterations - 1):
        square = polynomial @ square @ polynomial
        polynomial = _polynomial(square)
        factor = polynomial @ factor
    directions: torch.Tensor = factor @ x
    return directions.mT if is_tall else directions


def _polynomial(square: torch.Tensor) -> torch.Tensor:
    """What one step of the iteration multiplies X by, from X Xᵀ."""
    a, b, c = NEWTON_SCHULZ
    polynomial = b * square + c * (square @ square)
    polynomial.diagonal(dim1=-2, dim2=-1).add_(a)
    return polynomial


def is_for_muon(parameter: torch.Tensor) -> bool:
    """Whether it is a matrix or kernel wide enough to have directions worth equalising."""
    return parameter.ndim >= 2 and min(parameter.shape[0], parameter.numel() // parameter.shape[0]) >= 16
