"""The training's device, precision, memory and memory format."""

import ctypes
import logging
import os
from typing import TypeVar

import torch

from training.dreamlet.config import Preset

Network = TypeVar("Network", bound=torch.nn.Module)

# mallopt(3): -1 as the threshold turns trimming off.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


def begin(threads: int = 0) -> None:
    """What every command of training does first: log to the terminal, make the device as fast as it can be.

    Args:
        threads: of the CPU; 0 leaves their number to torch.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    # The tokenizers library warns about processes that are forked after it has been used.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if threads:
        torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    # Gradients and activations have numbers below 1e-38, each of which slows a CPU down: as zero, a step of training
    # takes a third of the time, and so does a picture.
    # This holds for threads that are made from here on.
    torch.set_flush_denormal(True)
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next step, which wants as much again; other C libraries are left as they are.

    Otherwise every large tensor's memory goes back to the system, and its pages come anew, filled with zeros.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(M_MMAP_MAX, 0)
        set_option(M_TRIM_THRESHOLD, -1)


def device() -> torch.device:
    """The accelerator if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_fast_bfloat16() -> bool:
    """Whether the device multiplies bfloat16 faster than float32: GPUs, and CPUs with Intel's AMX."""
    return device().type == "cuda" or bool(torch.cpu.get_capabilities().get("amx_bf16"))


def autocast(preset: Preset) -> torch.autocast:
    """The precision in which networks are trained."""
    is_bfloat16 = preset.precision == "auto" and has_fast_bfloat16()
    return torch.autocast(device().type, dtype=torch.bfloat16, enabled=is_bfloat16)


def to_device(network: Network) -> Network:
    """The network on the device, its kernels laid out channels last, which is fastest everywhere."""
    network.to(device())
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack this form
    return network


def as_network_input(images: torch.Tensor) -> torch.Tensor:
    """Pictures of bytes as the networks want them: (N, 3, H, W) in [-1, 1], float32, on the device, channels last."""
    return images.to(device(), torch.float32, memory_format=torch.channels_last) / 127.5 - 1
