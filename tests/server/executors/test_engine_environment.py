"""What the engine process may know of the gateway's environment."""

from __future__ import annotations

import asyncio
import json
import os
import sys

import pytest

from server.config import Settings
from server.executors.engine_environment import engine_environment

HARMLESS = {
    "PATH": "/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "LD_LIBRARY_PATH": "/usr/lib",
    "OMP_NUM_THREADS": "2",
    "OMP_WAIT_POLICY": "passive",
    "CUDA_VISIBLE_DEVICES": "1",
    "PYTORCH_CUDA_ALLOC_CONF": "x",
    "HF_HOME": "/models",
    "HF_HUB_CACHE": "/models/hub",
    "XDG_CACHE_HOME": "/cache",
    "PYTHONHASHSEED": "0",
}
SECRETS = (
    *("API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_TOKEN", "AWS_SECRET_ACCESS_KEY", "DATABASE_URL"),
    *(
        "SITE_SECRET_KEY",
        "REDIS_URL",
        "TORCH_TOKEN",
        "NOTIFY_SOCKET",
        "XDG_SECRET",
        "PGPASSWORD",
        "TLS_KEY",
        "anything",
    ),
)


def test_what_the_engine_needs_reaches_it_and_nothing_else():
    told = engine_environment(HARMLESS | dict.fromkeys(SECRETS, "s3cret"))
    assert {name: told[name] for name in HARMLESS} == HARMLESS
    assert "s3cret" not in told.values()
    assert told["HF_HUB_OFFLINE"] == "1"
    assert told["TORCH_DEVICE_BACKEND_AUTOLOAD"] == "0"


@pytest.mark.parametrize(
    "name", sorted(Settings.model_fields.keys() - {"torch_dtype"})
)  # harmless, and named as torch's own are
def test_no_setting_of_the_gateway_reaches_the_engine_by_its_environment(name):
    """It is given what it needs as its first message."""
    assert "s3cret" not in engine_environment({name.upper(): "s3cret", name: "s3cret"}).values()


async def test_a_process_starts_with_what_is_allowed():
    environment = engine_environment(dict(os.environ) | {"API_KEY": "s3cret"})
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import json, os, server, engine; print(json.dumps(dict(os.environ)))",
        env=environment,
        cwd="/",
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert "s3cret" not in json.loads(out).values()
