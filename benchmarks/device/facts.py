"""Which device this is, with which driver and at which clocks. Reads, and changes nothing."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass

import torch

__all__ = ["Clocks", "DeviceFacts"]

_QUERY = "clocks.sm,clocks.max.sm,clocks.mem,power.draw,power.limit,temperature.gpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """What does not change while a benchmark runs. Versions are None on a CPU."""

    name: str
    memory_bytes: int | None
    driver: str | None
    cuda: str | None
    """That torch was built for."""
    cudnn: int | None

    @classmethod
    def of(cls, device: torch.device) -> DeviceFacts:
        """Read them."""
        if device.type != "cuda":
            return cls(name="CPU", memory_bytes=None, driver=None, cuda=None, cudnn=None)
        driver = _nvidia_smi("driver_version", device)
        return cls(
            name=torch.cuda.get_device_name(device),
            memory_bytes=torch.cuda.get_device_properties(device).total_memory,
            driver=driver[0] if driver else None,
            cuda=torch.version.cuda,
            cudnn=torch.backends.cudnn.version(),  # type: ignore[no-untyped-call] # torch has no types for it
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """A moment's clocks, power and warmth, as `nvidia-smi` prints them. A GPU at rest clocks down: look under load."""

    sm_mhz: str
    max_sm_mhz: str
    memory_mhz: str
    power_w: str
    power_limit_w: str
    temperature_c: str

    @classmethod
    def now(cls, device: torch.device) -> Clocks | None:
        """Read them; None on a CPU, or where there is no `nvidia-smi`."""
        fields = _nvidia_smi(_QUERY, device) if device.type == "cuda" else None
        if fields is None or len(fields) != len(_QUERY.split(",")):
            return None
        sm, max_sm, memory, power, power_limit, temperature = fields
        return cls(
            sm_mhz=sm,
            max_sm_mhz=max_sm,
            memory_mhz=memory,
            power_w=power,
            power_limit_w=power_limit,
            temperature_c=temperature,
        )


def _nvidia_smi(query: str, device: torch.device) -> list[str] | None:
    """The fields of a query about the device; None if nobody answers."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    # By its UUID: nvidia-smi counts all devices, torch only those that CUDA_VISIBLE_DEVICES leaves.
    identity = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    try:
        answer = subprocess.run(  # noqa: S603 - a program of the driver, our own arguments
            [program, f"--query-gpu={query}", "--format=csv,noheader,nounits", f"--id={identity}"],
            capture_output=True,
            check=True,
            text=True,
            timeout=20,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return [field.strip() for field in answer.stdout.strip().split(",")]
