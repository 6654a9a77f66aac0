"""Which of the two lock files does this machine's NVIDIA driver want?

The pinned torch brings CUDA 13, which wants driver 580. An older driver can run the last torch that brings CUDA 12; the
only other way out would be to draw on the CPU in silence.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CONSTRAINTS", "CUDA12_LOCK", "CUDA_LIBRARY", "DEFAULT_LOCK", "Choice", "choose_lock", "find_driver"]

DEFAULT_LOCK = "requirements.lock.txt"
CUDA12_LOCK = "requirements-cuda12.lock.txt"
CONSTRAINTS = {DEFAULT_LOCK: "constraints/cuda13.txt", CUDA12_LOCK: "constraints/cuda12.txt"}
"""The file that each lock leaves the versions of the CUDA libraries to."""
CUDA_LIBRARY = re.compile(r"^(nvidia-.*|cuda-.*|triton)$")
"""What only a CUDA build of torch brings. It stands in a constraints file: pinned where torch asks for it, and not
installed where torch is a CPU build."""

FIRST_DRIVER_WITH_CUDA_13 = 580
FIRST_DRIVER_WITH_CUDA_12 = 525
"""Major driver versions; NVIDIA's CUDA release notes, "minimum required driver version for CUDA minor version
compatibility"."""

KERNEL_MODULE_VERSION = Path("/proc/driver/nvidia/version")
WSL_NVIDIA_SMI = Path("/usr/lib/wsl/lib/nvidia-smi")
"""Not on everybody's PATH under WSL2, where there is no kernel module to ask either."""
NVIDIA_SMI_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class Choice:
    """A lock file, and one line that says why."""

    lock: str
    reason: str


def choose_lock(driver: str | None) -> Choice:
    """Choose for a driver version such as `576.80`; None: there is no NVIDIA driver."""
    if driver is None:
        return Choice(DEFAULT_LOCK, "no NVIDIA driver here")
    major = int(driver.split(".")[0])
    if major >= FIRST_DRIVER_WITH_CUDA_13:
        return Choice(DEFAULT_LOCK, f"NVIDIA driver {driver} runs CUDA 13")
    if major >= FIRST_DRIVER_WITH_CUDA_12:
        return Choice(
            CUDA12_LOCK, f"NVIDIA driver {driver} is older than {FIRST_DRIVER_WITH_CUDA_13} and runs CUDA 12 only"
        )
    return Choice(
        DEFAULT_LOCK,
        f"NVIDIA driver {driver} is too old for CUDA 12 and 13, so the GPU stays idle: "
        f"install driver {FIRST_DRIVER_WITH_CUDA_13} or newer",
    )


def find_driver(
    kernel_module_version: Path = KERNEL_MODULE_VERSION, wsl_nvidia_smi: Path = WSL_NVIDIA_SMI
) -> str | None:
    """Read the NVIDIA driver's version, or None where there is no driver that answers."""
    try:
        text = kernel_module_version.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = _ask_nvidia_smi(wsl_nvidia_smi)
    found = re.search(r"\b\d{3,4}\.\d+(?:\.\d+)?\b", text)
    return found.group() if found else None


def _ask_nvidia_smi(wsl_nvidia_smi: Path) -> str:
    program = shutil.which("nvidia-smi") or (str(wsl_nvidia_smi) if wsl_nvidia_smi.exists() else None)
    if program is None:
        return ""
    try:
        answer = subprocess.run(  # noqa: S603 - fixed arguments
            [program, "--query-gpu=driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=NVIDIA_SMI_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""  # installed, but without a driver behind it
    return answer.stdout
