"""A model that cannot be served, for every cause: said once, at level error, with the file and the reason."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import time
from pathlib import Path

import pytest
import structlog
from safetensors.torch import load_file, save_file

from engine.errors import EngineError, ModelNotFoundError
from engine.models.locate import locate
from engine.models.random_model import make_random_model
from server.executors.child_process import ChildProcessExecutor
from server.executors.messages import Configure
from server.worker.start_up import start_engine

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def truncate(folder: Path) -> None:
    (folder / UNET).write_bytes((folder / UNET).read_bytes()[:1000])


def empty(folder: Path) -> None:
    (folder / UNET).write_bytes(b"")


def spoil_numbers(folder: Path) -> None:
    save_file({name: tensor * float("nan") for name, tensor in load_file(folder / VAE).items()}, folder / VAE)


def leave_a_directory(folder: Path) -> None:
    (folder / "tokenizer" / "vocab.json").unlink(missing_ok=True)
    (folder / "tokenizer" / "tokenizer.json").write_text("{}")


CAUSES = {
    "truncated weights": (truncate, UNET),
    "empty weights": (empty, UNET),
    "not finite": (spoil_numbers, "finite"),
    "a billion layers": (lambda folder: edit(folder / "unet/config.json", layers_per_block=10**9), "layers_per_block"),
    "a huge width": (lambda folder: edit(folder / "vae/config.json", norm_num_groups=10**12), "norm_num_groups"),
    "a foreign shape": (lambda folder: edit(folder / "unet/config.json", block_out_channels="abc"), "unet"),
    "no tokenizer": (leave_a_directory, "token"),
    "no device": (lambda _: None, "cuda"),
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults") / "tiny"
    make_random_model(folder, seed=1)
    return folder


def configure(folder: Path, device: str = "cpu") -> Configure:
    return Configure(model_id=str(folder), device=device, dtype="float32", rows_per_call=2)


@pytest.mark.parametrize("cause", CAUSES)
def test_whatever_is_wrong_with_a_model_is_one_line_that_names_it(tiny, tmp_path, cause):
    folder = shutil.copytree(tiny, tmp_path / "model")
    damage, named = CAUSES[cause]
    damage(folder)
    began = time.monotonic()
    with pytest.raises(EngineError) as refused:
        start_engine(configure(folder, "cuda" if cause == "no device" else "cpu"), lambda _: None)
    assert time.monotonic() - began < 30
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)


async def test_a_model_that_cannot_be_served_is_logged_once_with_its_reason(tiny, tmp_path):
    folder = shutil.copytree(tiny, tmp_path / "model")
    truncate(folder)
    executor = ChildProcessExecutor(configure(folder))
    with structlog.testing.capture_logs() as logs:
        await executor.start()
        async with asyncio.timeout(120):
            while executor.state == "loading":
                await asyncio.sleep(0.05)
        await executor.stop()
    errors = [line for line in logs if line["log_level"] == "error"]
    assert [line["event"] for line in errors] == ["the model cannot be served"]
    assert UNET in errors[0]["reason"]
    assert executor.failure == errors[0]["reason"]
    assert logs[0]["event"] == f"loading {folder}"


async def test_loading_and_ready_are_logged():
    executor = ChildProcessExecutor(Configure(model_id="fake-engine:1:100", device="cpu", dtype="float32"))
    with structlog.testing.capture_logs() as logs:
        await executor.start()
        await executor.wait_until_ready()
        await executor.stop()
    first, second = [line["event"] for line in logs][:2]
    assert first == "loading fake-engine:1:100"
    assert second.startswith("ready after 0.")


async def test_an_engine_that_dies_while_it_loads_is_tried_again_and_the_reason_shows():
    executor = ChildProcessExecutor(Configure(model_id="fake-engine:1:60000", device="cpu", dtype="float32"))
    await executor.start()
    try:
        async with asyncio.timeout(20):
            while executor._process is None:
                await asyncio.sleep(0.01)
            executor._process.kill()
            while executor.load_trouble is None:
                await asyncio.sleep(0.01)
        assert executor.load_trouble == (
            "the engine process ended while loading (killed by the system, perhaps out of memory)"
        )
        assert executor.state == "loading"
    finally:
        await executor.stop()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("v1-5-pruned.safetensors", "there is no file"),
        ("models/X.SAFETENSORS", "there is no file"),
        ("/a b/c.ckpt", "only .safetensors is read"),
    ],
)
def test_a_single_file_that_cannot_be_read_is_named_with_the_reason(name, reason):
    with pytest.raises(ModelNotFoundError, match=re.escape(reason)) as refused:
        locate(name)
    assert name in str(refused.value)
