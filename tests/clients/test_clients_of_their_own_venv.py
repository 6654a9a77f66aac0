"""litellm and LangChain drive the server. Their dependencies conflict with ours: `make test-clients` installs them.

What they send without them is in `test_replayed_clients.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import httpx2
import pytest

from server.worker.fake_executor import FakeExecutor
from tests.server.uploads.picture_files import png

HERE = Path(__file__).parent
PYTHON = HERE.parents[1] / ".venv-clients" / "bin" / "python"

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="make test-clients installs them")


@pytest.fixture(scope="module")
def running(module_serve):
    return module_serve(FakeExecutor(max_images_in_flight=8))


def said(script: str, *arguments: str):
    """What a program prints, without asking anybody else on the network."""
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LANGCHAIN_TRACING_V2": "false"}
    done = subprocess.run(
        [PYTHON, HERE / script, *arguments], env=environment, capture_output=True, check=False, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_litellm_draws_edits_and_is_refused_with_its_own_class(running, tmp_path):
    (tmp_path / "image.png").write_bytes(png(64, 128))
    answer = said("litellm_draws.py", running.url, str(tmp_path / "image.png"))
    wish = {"prompt": "a cat", "num_images": 2, "width": 64, "height": 64, "seed": 3, "num_inference_steps": 2}
    ours = httpx2.post(f"{running.url}/generate", json=wish).json()
    assert answer["drawn"] == [image["b64"] for image in ours["images"]]
    assert answer["edited"] == 1
    assert running.executor.started[-2].params.width == 128
    assert answer["refused"] == ["NotFoundError", 404]


def test_langchain_draws_and_reads_addresses_that_need_no_key(running):
    addresses = said("langchain_draws.py", running.url)
    assert len(addresses) == 2
    for address in addresses:
        assert address.startswith(running.url)
        assert httpx2.get(address).content.startswith(b"\x89PNG")
    params = running.executor.started[-1].params
    assert (params.prompt, params.width, params.num_images) == ("a cat", 64, 2)
