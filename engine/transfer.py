"""How tensors go to the device: from pinned memory, so that the host does not wait for the steps before them."""

from __future__ import annotations

import torch

__all__ = ["pinned", "sent"]


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the host, on its way to the device."""
    return pinned(tensor, device).to(device, non_blocking=True)


def pinned(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Where a copy to the device can begin at once; one from pageable memory would wait for the steps before it.

    torch's allocator keeps the memory until the copy is over, whoever drops the tensor.
    """
    return tensor.pin_memory() if device.type == "cuda" else tensor
