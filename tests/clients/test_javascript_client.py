"""OpenAI's JavaScript SDK, from npm, drives the server. Skipped where npm or its registry is missing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import httpx2
import pytest

from server.worker.fake_executor import FakeExecutor
from tests.server.uploads.picture_files import png

PACKAGE = "openai@6.30.1"
"""The last release that runs on Node 20."""
SCRIPT = Path(__file__).with_name("openai_smoke.mjs")
_UNREACHABLE = re.compile(r"\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|E403|E404|E50[0-4])\b")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the SDK is installed, without its scripts being run."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("javascript")
    command = [npm, "install", "--prefix", str(folder), "--ignore-scripts", "--no-audit", "--no-fund", "--no-save"]
    command += ["--prefer-offline", "--fetch-retries=0", "--fetch-timeout=20000", PACKAGE]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, check=False, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        pytest.skip("the npm registry does not answer")
    if done.returncode and _UNREACHABLE.search(done.stderr):
        pytest.skip("the npm registry cannot be reached")
    assert done.returncode == 0, done.stderr
    shutil.copy(SCRIPT, folder)
    return folder


def test_the_sdk_draws_edits_streams_lists_and_is_refused_with_its_own_classes(serve, folder):
    running = serve(FakeExecutor(max_images_in_flight=8))
    (folder / "image.png").write_bytes(png(64, 128))
    command = ["node", SCRIPT.name, running.url, "image.png"]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    wish = {"prompt": "a cat", "num_images": 2, "width": 64, "height": 64, "seed": 3, "num_inference_steps": 2}
    ours = httpx2.post(f"{running.url}/generate", json=wish).json()
    assert said["drawn"] == [image["b64"] for image in ours["images"]]
    assert said["size"] == "128x64"
    assert said["events"][-1] == "image_generation.completed"
    assert said["models"] == ["fake"]
    assert said["refused"] == ["BadRequestError", 400, "unknown_parameter", "colour"]
