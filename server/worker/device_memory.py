"""How full the memory of a GPU is, for answers to pings. Imports torch."""

import torch

from engine.errors import DeviceError
from server.executors.messages import DeviceMemory

__all__ = ["device_memory"]


def device_memory(device: torch.device) -> DeviceMemory | None:
    """How full a GPU is; of a CPU nothing. Takes microseconds, and does not wait for it.

    Raises:
        DeviceError: the device failed.
    """
    if device.type != "cuda":
        return None
    try:
        free_bytes, total_bytes = torch.cuda.mem_get_info(device)
    except torch.AcceleratorError as error:
        raise DeviceError(f"the device failed while reporting its memory: {error}") from error
    return DeviceMemory(
        total_bytes=total_bytes,
        free_bytes=free_bytes,
        reserved_bytes=torch.cuda.memory_reserved(device),
        allocated_bytes=torch.cuda.memory_allocated(device),
    )
