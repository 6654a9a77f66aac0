"""GPU checks: is there one, and can the installed torch use it? By nvidia-smi, and torch in a separate process."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from server.cli.doctor.finding import Finding

__all__ = ["Gpu", "TorchBuild", "judge_gpu", "look_at_gpu"]

_WSL_NVIDIA_SMI = Path("/usr/lib/wsl/lib/nvidia-smi")
"""Not on everybody's PATH under WSL2."""
_NVIDIA_SMI_TIMEOUT_S = 15.0
_TORCH_TIMEOUT_S = 60.0
"""Its first import from a cold disk reads gigabytes of CUDA libraries."""

_LEAST_DRIVER = {"12": 525, "13": 580}
"""CUDA's major version -> the driver's; NVIDIA's CUDA release notes, "minimum required driver version for CUDA minor
version compatibility"."""

_REINSTALL = "remove .venv and start ./run.sh, which installs the build that this driver can run"


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as nvidia-smi reports it."""

    name: str
    driver: str
    memory: str


@dataclass(frozen=True, slots=True)
class TorchBuild:
    """The installed torch, read from its files without importing it."""

    version: str
    cuda: str | None
    """The CUDA version it was built for; None: for the CPU alone."""


def look_at_gpu(device: str) -> Iterator[Finding]:
    """Look at GPU, driver and torch.

    Args:
        device: the setting DEVICE.
    """
    torch = _torch_build()
    if torch is None:
        yield Finding("torch", "FAIL", "is not installed", "start ./run.sh, or install requirements.lock.txt")
        return
    yield Finding("torch", "ok", f"{torch.version}, built for " + (f"CUDA {torch.cuda}" if torch.cuda else "the CPU"))
    gpus = _ask_nvidia_smi()
    judged = judge_gpu(gpus, torch, device)
    if judged is not None:
        yield judged
        return
    problem = _ask_torch()
    names = "; ".join(f"{gpu.name}, {gpu.memory}, driver {gpu.driver}" for gpu in gpus)
    yield Finding("gpu", "ok", names) if problem is None else _trouble(device, f"{names}: {problem}", _REINSTALL)


def judge_gpu(gpus: list[Gpu], torch: TorchBuild, device: str) -> Finding | None:
    """What follows from driver, build and setting alone; None: torch itself must be asked."""
    if not gpus:
        if device.startswith("cuda"):
            return Finding(
                "gpu",
                "FAIL",
                f"DEVICE={device}, but nvidia-smi finds no GPU",
                "install NVIDIA's driver, or set DEVICE=auto",
            )
        return Finding("gpu", "ok", "no NVIDIA GPU; pictures are drawn on the CPU")
    shown = f"{gpus[0].name} with driver {gpus[0].driver}"
    if device == "cpu":
        return Finding("gpu", "ok", f"{shown}; not used, as DEVICE=cpu")
    if torch.cuda is None:
        return _trouble(device, f"{shown} is there, but torch {torch.version} is built for the CPU", _REINSTALL)
    least = _LEAST_DRIVER.get(torch.cuda.split(".")[0])
    if least is not None and int(gpus[0].driver.split(".")[0]) < least:
        return _trouble(
            device,
            f"{shown} is too old for torch {torch.version}, whose CUDA {torch.cuda} needs {least} or newer",
            f"install driver {least} or newer; or {_REINSTALL}",
        )
    return None


def _trouble(device: str, found: str, remedy: str) -> Finding:
    """A GPU that cannot be used: fatal where it was asked for by name, else the CPU draws."""
    return Finding("gpu", "FAIL" if device.startswith("cuda") else "warn", found, remedy)


def _torch_build() -> TorchBuild | None:
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    try:
        source = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    except OSError:
        return TorchBuild(importlib.metadata.version("torch"), None)
    version = re.search(r"^__version__\s*(?::.*)?=\s*['\"]([^'\"]+)", source, re.MULTILINE)
    cuda = re.search(r"^cuda\s*(?::.*)?=\s*['\"]([^'\"]+)", source, re.MULTILINE)
    return TorchBuild(version[1] if version else importlib.metadata.version("torch"), cuda[1] if cuda else None)


def _ask_nvidia_smi() -> list[Gpu]:
    program = shutil.which("nvidia-smi") or (str(_WSL_NVIDIA_SMI) if _WSL_NVIDIA_SMI.exists() else None)
    if program is None:
        return []
    try:
        answer = subprocess.run(  # noqa: S603 -- fixed arguments
            [program, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=_NVIDIA_SMI_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []  # installed, but without a driver behind it
    fields = (line.split(", ") for line in answer.stdout.splitlines())
    return [Gpu(*found) for found in fields if len(found) == 3 and found[1][:1].isdecimal()]


def _ask_torch() -> str | None:
    """Why torch cannot use the GPU; None if it can."""
    # An addition on the device: that it is there does not mean that this build has code for it.
    program = "import torch; (torch.ones(2, device='cuda') + 1).cpu()"
    try:
        ended = subprocess.run(  # noqa: S603 -- fixed arguments
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=_TORCH_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"torch did not finish one addition on it within {_TORCH_TIMEOUT_S:.0f} s"
    if ended.returncode == 0:
        return None
    last_line = next(reversed(ended.stderr.strip().splitlines()), f"exit code {ended.returncode}")
    return f"torch cannot use it: {last_line}"
