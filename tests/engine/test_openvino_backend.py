"""Networks run by OpenVINO: as torch computes them, and always the same bits."""

from __future__ import annotations

import hashlib
import json
import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine.backends.base import Example, Function, NetworkFiles
from engine.backends.compiled_cache import CompiledCache
from engine.errors import ModelLoadError
from engine.models.examples import decoder_examples, text_encoder_examples, unet_examples
from engine.models.options import Options
from engine.networks.autoencoder import AutoencoderKL, AutoencoderTiny
from engine.networks.clip import TextEncoder
from engine.networks.conditioning import SizeAddition
from engine.networks.unet import UNet
from tests.engine.compiled_networks import EXAMPLES, KIND, plan_of, unet_files, unet_inputs
from tests.engine.test_networks import TINY_KL, TINY_TINY, UNETS

openvino_backend = pytest.importorskip("engine.backends.openvino_backend", exc_type=ImportError)

THREADS = 2


def backend(folder: Path | None, threads: int = THREADS) -> Any:
    return openvino_backend.OpenVinoBackend(threads, CompiledCache(folder) if folder is not None else None)


def no_load() -> nn.Module:
    raise AssertionError("weights were read though all was in the cache")


def digest(*outputs: Tensor) -> str:
    return hashlib.sha256(b"".join(output.numpy().tobytes() for output in outputs)).hexdigest()


def assert_close(output: Tensor, expected: Tensor, relative: float = 1e-5) -> None:
    """Sums in another order: a few units in the last place of the largest number."""
    torch.testing.assert_close(output, expected, rtol=0, atol=relative * float(expected.abs().max()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds the tiny UNet, and its file."""
    folder = tmp_path_factory.mktemp("openvino")
    backend(folder / "cache").functions(unet_files(folder), EXAMPLES)
    return folder


@pytest.fixture
def functions(folder: Path) -> dict[str, Function]:
    return dict(backend(folder / "cache").functions(unet_files(folder), EXAMPLES))


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> UNet:
    module = unet_files(tmp_path_factory.mktemp("weights")).load()
    assert isinstance(module, UNet)
    return module


# --- as torch ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", UNETS)
@torch.inference_mode()
def test_a_unet_of_any_kind_predicts_at_every_size_what_torch_does(tmp_path: Path, kind: str):
    """One compiled network serves all: odd sizes, one row and many, prompts of any length."""
    files = unet_files(tmp_path, kind=kind)
    unet = files.load()
    assert isinstance(unet, UNet)
    predict = backend(None).functions(files, {"forward": unet_examples(unet.plan)["forward"]})["forward"]
    # Halving twice, as "SDXL" does, needs more than three latents to be left with one.
    for shape in ({}, {"height": 13, "width": 10}, {"rows": 5}, {"rows": 1, "height": 24}, {"tokens": 154}, {}):
        inputs = unet_inputs(unet, **shape)
        assert_close(predict(*inputs), unet(*inputs))


@torch.inference_mode()
def test_what_is_computed_once_a_picture_is_what_torch_computes(functions: dict[str, Function], unet: UNet):
    embeds = torch.randn(1, 77, unet.plan.text_width)
    timesteps = torch.linspace(999, 0, 17)
    assert unet.add_embedding is not None
    addition = unet.add_embedding(embeds)
    assert_close(functions["add_embedding"](embeds), addition)
    assert_close(functions["pack_prompt"](embeds), unet.pack_prompt(embeds))
    assert_close(functions["pack_time"](timesteps, addition), unet.pack_time(timesteps, addition))


@torch.inference_mode()
def test_numbers_too_small_for_full_speed_are_zero(tmp_path: Path):
    """Below 1.2e-38 a float32 is denormal, which slows a processor down; torch on the CPU keeps it."""

    class Half(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 0.5

    weights = tmp_path / "half.safetensors"
    weights.write_bytes(b"")
    files = NetworkFiles(name="half", config={}, weights=weights, load=Half)
    x = torch.tensor([[4e-38, 1e-39, -1e-39, 1.0]])
    half = backend(None).functions(files, {"forward": lambda _: Example((torch.ones(1, 4),), ((),))})["forward"]
    assert half(x).tolist() == [[pytest.approx(2e-38), 0.0, 0.0, 0.5]]


@torch.inference_mode()
def test_sizes_and_guidance_are_what_torch_computes(tmp_path: Path):
    """As an SDXL that was distilled with its guidance scale has them."""
    files = unet_files(tmp_path, kind="SDXL", more={"time_cond_proj_dim": 16})
    unet = files.load()
    assert isinstance(unet, UNet)
    assert isinstance(unet.add_embedding, SizeAddition)
    functions = backend(None).functions(files, unet_examples(unet.plan))
    pooled, sizes = torch.randn(1, 16), torch.tensor([[1024.0, 768.0, 0.0, 16.0, 512.0, 640.0]])
    addition = unet.add_embedding(pooled, sizes)
    assert_close(functions["add_embedding"](pooled, sizes), addition)
    told = torch.linspace(999, 0, 17), torch.randn(1, 16), addition
    assert_close(functions["pack_guided_time"](*told), unet.pack_guided_time(*told))


@pytest.mark.parametrize(("kind", "config"), [(AutoencoderKL, TINY_KL), (AutoencoderTiny, TINY_TINY)])
@torch.inference_mode()
def test_an_autoencoder_decodes_what_torch_does(tmp_path: Path, kind: Any, config: dict[str, Any]):
    torch.manual_seed(1)
    autoencoder = kind(Options(Path("config.json"), config)).eval()
    files = files_of(tmp_path, "vae", config, autoencoder)
    decode = backend(None).functions(files, decoder_examples(4))["decode"]
    for height, width in ((8, 8), (5, 12), (8, 8)):
        latents = torch.randn(1, 4, height, width)
        assert_close(decode(latents), autoencoder.decode(latents))


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@torch.inference_mode()
def test_a_text_encoder_reads_what_torch_does(tmp_path: Path, activation: str):
    config = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "vocab_size": 100,
        "hidden_act": activation,
    }
    torch.manual_seed(1)
    encoder = TextEncoder(Options(Path("config.json"), config)).eval()
    read = backend(None).functions(files_of(tmp_path, "text_encoder", config, encoder), text_encoder_examples())
    tokens = torch.randint(0, 100, (1, 77))
    assert_close(read["forward"](tokens), encoder(tokens))


def files_of(folder: Path, name: str, config: dict[str, Any], module: nn.Module) -> NetworkFiles:
    weights = folder / "weights.safetensors"
    weights.write_text("1")
    return NetworkFiles(
        name=name, config=config, weights=weights, load=lambda: module.requires_grad_(requires_grad=False)
    )


# --- the same bits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
@torch.inference_mode()
def test_a_row_has_the_same_bits_in_any_company_and_after_any_history(folder: Path, unet: UNet, threads: int):
    predict = backend(folder / "cache", threads).functions(unet_files(folder), EXAMPLES)["forward"]
    latents, times, prompts = unet_inputs(unet)
    alone = predict(latents, times, prompts)
    for height, width, rows in ((16, 8, 2), (5, 7, 4), (32, 32, 2)):
        predict(*unet_inputs(unet, height=height, width=width, rows=rows))
    assert torch.equal(predict(latents, times, prompts), alone)
    assert torch.equal(predict(latents.flip(0), times.flip(0), prompts.flip(0)).flip(0), alone)
    latents[1], times[1], prompts[1] = 3.0, 0.5, -1.0
    assert torch.equal(predict(latents, times, prompts)[0], alone[0])


@torch.inference_mode()
def test_a_cold_cache_a_warm_one_and_none_give_the_same_bits(folder: Path, tmp_path: Path, unet: UNet):
    inputs = unet_inputs(unet)
    files = unet_files(folder)
    found = {
        name: backend(cache).functions(files, EXAMPLES)["forward"](*inputs)
        for name, cache in {"warm": folder / "cache", "cold": tmp_path / "cache", "none": None}.items()
    }
    assert torch.equal(found["warm"], found["cold"])
    assert torch.equal(found["warm"], found["none"])


_SECOND_START = """
import hashlib, json, sys, torch
from pathlib import Path
from tests.engine.compiled_networks import EXAMPLES, unet_files, unet_inputs
from engine.backends.compiled_cache import CompiledCache
folder = Path(sys.argv[1])
files = unet_files(folder)
unet = files.load()
from engine.backends.openvino_backend import OpenVinoBackend
with torch.inference_mode():
    functions = OpenVinoBackend(2, CompiledCache(folder / "cache")).functions(files, EXAMPLES)
    output = functions["forward"](*unet_inputs(unet))
print(json.dumps({
    "digest": hashlib.sha256(output.numpy().tobytes()).hexdigest(),
    "converts": sorted({"engine.backends.conversion", "openvino.frontend.pytorch.ts_decoder"} & sys.modules.keys()),
    "reports": "openvino_telemetry.main" in sys.modules,
}))
"""


@torch.inference_mode()
def test_another_process_gives_the_same_bits_and_imports_nothing_of_the_conversion(
    folder: Path, functions: dict[str, Function], unet: UNet
):
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", _SECOND_START, str(folder)], cwd=root, check=True, capture_output=True, text=True
    )
    second = json.loads(done.stdout.splitlines()[-1])
    assert second["digest"] == digest(functions["forward"](*unet_inputs(unet)))
    assert second["converts"] == []


_LARGE_AND_SMALL = """
import json, sys, torch
from pathlib import Path
from engine.backends import openvino_backend
from engine.backends.compiled_cache import CompiledCache
from tests.engine.compiled_networks import EXAMPLES, unet_files, unet_inputs

def resident_bytes():
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0]) * 1024

openvino_backend.CALLS_UNTIL_RELEASE = 3
folder = Path(sys.argv[1])
files = unet_files(folder)
unet = files.load()
with torch.inference_mode():
    predict = openvino_backend.OpenVinoBackend(2, CompiledCache(folder / "cache")).functions(files, EXAMPLES)["forward"]
    inputs = unet_inputs(unet)
    before = predict(*inputs)
    predict(*unet_inputs(unet, height=128, width=128))
    large = resident_bytes()
    after = [predict(*inputs) for _ in range(5)]
    given_back = large - resident_bytes()
print(json.dumps([given_back, all(torch.equal(output, before) for output in after)]))
"""


def test_memory_that_a_large_picture_took_is_given_back_without_a_change_of_bits(folder: Path):
    # In a process of its own: what other tests have left in this one's heap hides what is given back.
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", _LARGE_AND_SMALL, str(folder)], cwd=root, check=True, capture_output=True, text=True
    )
    given_back, is_equal = json.loads(done.stdout.splitlines()[-1])
    assert given_back > 10 * 2**20
    assert is_equal


# --- what goes wrong --------------------------------------------------------------------------------------------------


class Joins(nn.Module):
    """Two inputs of the same height; others are an error that only shows when it is called."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return torch.cat([first, second], dim=1)


@pytest.mark.parametrize("threads", [1, 2])
@torch.inference_mode()
def test_a_call_that_fails_never_hands_out_the_result_of_another(tmp_path: Path, threads: int):
    """`InferRequest.infer` of OpenVINO 2026.4 swallows errors where it has one thread."""
    example = Example((torch.zeros(1, 2, 3), torch.zeros(1, 2, 3)), ((2,), (2,)))
    join = backend(None, threads).functions(files_of(tmp_path, "joins", {}, Joins()), {"forward": lambda _: example})
    secret = torch.full((1, 2, 3), 7.0)
    assert torch.equal(join["forward"](secret, secret), torch.full((1, 4, 3), 7.0))
    with pytest.raises(RuntimeError, match="Concat"):
        join["forward"](torch.zeros(1, 2, 3), torch.zeros(1, 2, 5))
    assert torch.equal(join["forward"](secret, secret), torch.full((1, 4, 3), 7.0))


@pytest.mark.parametrize("damage", ["cut short", "a flipped bit", "empty", "of something else", "a folder"])
@torch.inference_mode()
def test_a_damaged_or_foreign_file_is_logged_and_made_again(
    tmp_path: Path, unet: UNet, damage: str, caplog: pytest.LogCaptureFixture
):
    files, inputs = unet_files(tmp_path), unet_inputs(unet)
    before = backend(tmp_path / "cache").functions(files, EXAMPLES)["forward"](*inputs)
    for path in (tmp_path / "cache").glob("*.compiled"):
        data = bytearray(path.read_bytes())
        path.unlink()
        match damage:
            case "cut short":
                path.write_bytes(data[: len(data) // 2])
            case "a flipped bit":
                data[len(data) // 3] ^= 1
                path.write_bytes(data)
            case "empty":
                path.write_bytes(b"")
            case "of something else":
                path.write_bytes(b"GIF89a" * 1000)
            case "a folder":
                path.mkdir()
    caplog.clear()
    caplog.set_level(logging.WARNING, "engine.backends")
    after = backend(tmp_path / "cache").functions(files, EXAMPLES)["forward"](*inputs)
    assert torch.equal(before, after)
    assert sum("compiling it again" in message for message in caplog.messages) == len(EXAMPLES)
    if damage != "a folder":
        backend(tmp_path / "cache").functions(unwilling(files), EXAMPLES)


def unwilling(files: NetworkFiles) -> NetworkFiles:
    """The same, and it must not be loaded."""
    return NetworkFiles(name=files.name, config=files.config, weights=files.weights, load=no_load)


def test_with_all_in_the_cache_no_weights_are_read(folder: Path):
    backend(folder / "cache").functions(unwilling(unet_files(folder)), EXAMPLES)


@pytest.mark.parametrize("change", ["weights", "config", "threads"])
def test_another_model_or_another_machine_is_compiled_anew(tmp_path: Path, change: str):
    backend(tmp_path / "cache").functions(unet_files(tmp_path), EXAMPLES)
    files = unet_files(tmp_path, kind="without a middle" if change == "config" else KIND, seed=int(change == "weights"))
    examples = unet_examples(plan_of(UNETS["without a middle"])) if change == "config" else EXAMPLES
    with pytest.raises(AssertionError, match="weights were read"):
        backend(tmp_path / "cache", 1 if change == "threads" else 2).functions(unwilling(files), examples)


def test_weights_that_change_while_they_are_read_are_refused_and_not_kept(tmp_path: Path):
    files = unet_files(tmp_path)

    def load() -> nn.Module:
        module = files.load()
        files.weights.write_text("12")
        return module

    with pytest.raises(ModelLoadError, match="was changed while it was read"):
        backend(tmp_path / "cache").functions(
            NetworkFiles(name="unet", config=files.config, weights=files.weights, load=load), EXAMPLES
        )
    assert not list((tmp_path / "cache").glob("*.compiled"))


def test_missing_weights_are_named(tmp_path: Path):
    files = unet_files(tmp_path)
    files.weights.unlink()
    with pytest.raises(ModelLoadError, match=r"unet\.safetensors is damaged or not readable"):
        backend(tmp_path / "cache").functions(files, EXAMPLES)


@torch.inference_mode()
def test_two_engines_may_fill_one_folder_at_once(tmp_path: Path, unet: UNet):
    files, inputs = unet_files(tmp_path), unet_inputs(unet)

    def start(_: int) -> str:
        with torch.inference_mode():  # which each thread has to say for itself
            return digest(backend(tmp_path / "cache").functions(files, EXAMPLES)["forward"](*inputs))

    with ThreadPoolExecutor(3) as starts:
        assert len(set(starts.map(start, range(3)))) == 1
    assert not list((tmp_path / "cache").glob(".unfinished-*"))
    backend(tmp_path / "cache").functions(unwilling(files), EXAMPLES)


def test_nothing_is_reported_to_the_makers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`openvino.convert_model` would tell them, through this class."""
    telemetry = pytest.importorskip("openvino_telemetry")
    monkeypatch.setattr(telemetry.Telemetry, "__init__", lambda *_, **__: pytest.fail("something is reported"))
    backend(None).functions(unet_files(tmp_path), EXAMPLES)
