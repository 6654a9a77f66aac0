"""Which devices of this host draw. Imports nothing that the start would have to wait for."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import Final

from server.config import Settings

__all__ = ["local_devices"]

_NVIDIA_SMI_TIMEOUT_S: Final = 15.0


def local_devices(settings: Settings) -> Sequence[str]:
    """The devices of this host that draw, by the names that torch has for them. None where others do."""
    if settings.devices == ("auto",):
        num_gpus = _num_gpus()
        return [f"cuda:{number}" for number in range(num_gpus)] if num_gpus > 1 else ["auto"]
    if settings.devices:
        return settings.devices
    return [] if settings.engines or settings.engine_pool_url else [settings.device]


def _num_gpus() -> int:
    """GPUs that torch would see, without importing it."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() and name.strip() != "-1"])
    program = shutil.which("nvidia-smi")
    if program is None:
        return 0
    try:
        told = subprocess.run(  # noqa: S603 -- found on PATH, no input
            [program, "-L"], capture_output=True, text=True, timeout=_NVIDIA_SMI_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in told.stdout.splitlines())
