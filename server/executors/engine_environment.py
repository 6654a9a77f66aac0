"""Environment variables of the engine process: an allow-list, so that no secret of the gateway's is among them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

__all__ = ["engine_environment"]

_PACKAGE_ROOT: Final = Path(__file__).resolve().parents[2]

_ALLOWED: Final = re.compile(
    # The machine and its user.
    "PATH|HOME|USER|LOGNAME|HOSTNAME|LANG|LANGUAGE|LC_.*|TZ|TMPDIR|TEMP|TMP|XDG_.*|LD_.*|MALLOC_.*|GLIBC_TUNABLES"
    # Python, and how its log looks on a terminal.
    "|PYTHON.*|VIRTUAL_ENV|COVERAGE_.*|TERM|COLUMNS|NO_COLOR|FORCE_COLOR"
    # Threads and devices of torch.
    "|TORCH.*|PYTORCH_.*|TRITON_.*|OMP_.*|GOMP_.*|KMP_.*|MKL_.*|OPENBLAS_.*|NUMEXPR_.*"
    "|CUDA_.*|CUBLAS_.*|CUDNN_.*|NVIDIA_.*|NCCL_.*|HIP_.*|HSA_.*|ROCR_.*"
    # Where the model hub's cache is.
    "|HF_.*|HUGGINGFACE_.*|TRANSFORMERS_.*|DIFFUSERS_.*|SAFETENSORS_.*"
)
_SECRET: Final = re.compile("TOKEN|SECRET|PASSW|CREDENTIAL|_KEY")
"""In a name that would be allowed: the engine needs no way into anything (`HF_TOKEN`)."""


def engine_environment(ours: Mapping[str, str]) -> dict[str, str]:
    """What the engine process sees: this package importable from any folder, and no way to the network.

    Args:
        ours: the gateway's environment.
    """
    allowed = {name: value for name, value in ours.items() if _ALLOWED.fullmatch(name) and not _SECRET.search(name)}
    paths = [str(_PACKAGE_ROOT), ours.get("PYTHONPATH", "")]
    return {
        **allowed,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        # Other packages' devices, which no setting names: looking for them reads the metadata of every package.
        "TORCH_DEVICE_BACKEND_AUTOLOAD": "0",
    }
