"""Permanent LoRAs: what files of every common kind change, against diffusers and peft; and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.backends.compiled_cache import CompiledCache
from engine.engine import Engine
from engine.errors import ModelLoadError
from engine.models.ldm_names import unet_source
from engine.models.loading import load_text_encoder, load_unet, network_files, read_unet_plan
from engine.models.locate import locate
from engine.models.random_model import make_random_model
from engine.models.stable_diffusion import StableDiffusion
from tests.engine.drawing import Params, add_all, images, run

CPU = torch.device("cpu")
RANK, ALPHA = 4, 2.0
UNET_LAYERS = ("attn1.to_q", "attn2.to_out.0", "ff.net.0.proj", "proj_in", "conv1", "time_emb_proj")
TEXT_LAYERS = ("self_attn.q_proj", "mlp.fc1")


@pytest.fixture(params=["tiny", "tiny-xl"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    make_random_model(tmp_path / "model", arch=request.param, seed=7)
    return tmp_path / "model"


def layers(module: torch.nn.Module, endings: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """Layer -> its weight, of those that LoRAs usually change."""
    return {
        name.removesuffix(".weight"): weight
        for name, weight in module.state_dict().items()
        if name.endswith(tuple(f".{ending}.weight" for ending in endings))
    }


def matrices(weight: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Down and up, as trainers shape them for this layer."""
    generator = torch.Generator().manual_seed(seed)
    down = torch.randn((RANK, *weight.shape[1:]), generator=generator) / 8
    up = torch.randn((weight.shape[0], RANK, *(1 for _ in weight.shape[2:])), generator=generator) / 8
    return down, up


def kohya(name: str, prefix: str, down: torch.Tensor, up: torch.Tensor) -> dict[str, torch.Tensor]:
    stem = prefix + name.replace(".", "_")
    return {
        f"{stem}.lora_down.weight": down,
        f"{stem}.lora_up.weight": up,
        f"{stem}.alpha": torch.tensor(ALPHA),
    }


def peft(name: str, prefix: str, down: torch.Tensor, up: torch.Tensor) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}.lora_A.weight": down, f"{prefix}{name}.lora_B.weight": up}


def write_lora(folder: Path, lora: dict[str, torch.Tensor], side: str = "", **notes: str) -> None:
    """A LoRA beside a model, and the side file that names it."""
    save_file({name: tensor.contiguous() for name, tensor in lora.items()}, folder.parent / "look.safetensors", notes)
    folder.with_name(f"{folder.name}.toml").write_text(f'[[loras]]\nfile = "look.safetensors"\n{side}')


def unet_lora(folder: Path, write: Callable[..., dict[str, torch.Tensor]], prefix: str) -> dict[str, torch.Tensor]:
    found = layers(load_unet(folder, torch.float32, CPU), UNET_LAYERS)
    assert len(found) > 8
    lora: dict[str, torch.Tensor] = {}
    for seed, (name, weight) in enumerate(found.items()):
        lora |= write(name, prefix, *matrices(weight, seed))
    return lora


@pytest.mark.parametrize(
    ("write", "prefix", "notes", "scale"),
    [
        (kohya, "lora_unet_", {}, ALPHA / RANK),
        (peft, "unet.", {}, 1.0),
        (peft, "unet.", {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 8, "unet.r": RANK})}, 8 / RANK),
    ],
    ids=["kohya", "diffusers", "diffusers with a noted alpha"],
)
def test_the_unet_is_changed_as_diffusers_and_peft_change_it(folder: Path, write, prefix: str, notes, scale: float):
    lora = unet_lora(folder, write, prefix)
    is_xl = "xl" in json.loads((folder / "model_index.json").read_bytes())["_class_name"].lower()
    kind: Any = diffusers.StableDiffusionXLPipeline if is_xl else diffusers.StableDiffusionPipeline
    pipeline = kind.from_pretrained(str(folder))
    pipeline.load_lora_weights(dict(lora))
    # What diffusers does not read from a dictionary, peft is told.
    pipeline.fuse_lora(lora_scale=0.5 * (scale if notes else 1.0))
    pipeline.unload_lora_weights()
    expected = pipeline.unet.state_dict()
    before = load_unet(folder, torch.float32, CPU).state_dict()
    write_lora(folder, lora, "weight = 0.5", **notes)
    ours = load_unet(folder, torch.float32, CPU).state_dict()
    changed = 0
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, expected[name].reshape(tensor.shape), rtol=1e-5, atol=1e-6)
        changed += not torch.equal(tensor, before[name])
    assert changed == len(lora) // (3 if write is kohya else 2)


def old_diffusers(name: str, prefix: str, down: torch.Tensor, up: torch.Tensor) -> dict[str, torch.Tensor]:
    """As its attention processors were saved in 2023."""
    block, found, _ = name.rpartition(".attn1.to_q")
    if not found:
        return {}
    stem = f"{prefix}{block}.attn1.processor.to_q_lora"
    return {f"{stem}.down.weight": down, f"{stem}.up.weight": up}


def with_ldm_names(folder: Path) -> Callable[..., dict[str, torch.Tensor]]:
    plan = read_unet_plan(folder)

    def write(name: str, prefix: str, down: torch.Tensor, up: torch.Tensor) -> dict[str, torch.Tensor]:
        return kohya(unet_source(f"{name}.weight", plan).name.removesuffix(".weight"), prefix, down, up)

    return write


def bottlenecks(name: str, prefix: str, down: torch.Tensor, up: torch.Tensor) -> dict[str, torch.Tensor]:
    """LoCon with its kernel in a third matrix; the outer ones are 1x1."""
    if down.ndim != 4 or down.shape[-1] != 3:
        return {}
    stem = prefix + name.replace(".", "_")
    return {
        f"{stem}.lora_down.weight": down[..., :1, :1],
        f"{stem}.lora_mid.weight": torch.randn(RANK, RANK, 3, 3, generator=torch.Generator().manual_seed(1)),
        f"{stem}.lora_up.weight": up,
    }


@pytest.mark.parametrize("kind", ["old diffusers", "first code's names", "bottlenecks"])
def test_other_ways_to_write_a_file_change_what_their_formula_says(folder: Path, kind: str):
    write, prefix = {
        "old diffusers": (old_diffusers, "unet."),
        "first code's names": (with_ldm_names(folder), "lora_unet_"),
        "bottlenecks": (bottlenecks, "lora_unet_"),
    }[kind]
    lora = unet_lora(folder, write, prefix)
    before = load_unet(folder, torch.float32, CPU).state_dict()
    write_lora(folder, lora, "weight = -1")
    ours = load_unet(folder, torch.float32, CPU).state_dict()
    found = layers(load_unet(folder, torch.float32, CPU), UNET_LAYERS)
    changed = 0
    for seed, name in enumerate(found):
        written = list(write(name, prefix, *matrices(before[f"{name}.weight"], seed)).values())
        expected = before[f"{name}.weight"]
        if kind == "bottlenecks" and written:
            down, mid, up = written
            # A convolution after a convolution after a convolution, of single pixels that are on.
            inputs = torch.eye(expected.shape[1])[:, :, None, None]
            padded = torch.nn.functional.pad(inputs, (2, 2, 2, 2))
            middle = torch.nn.functional.conv2d(torch.nn.functional.conv2d(padded, down), mid)
            expected = expected - torch.nn.functional.conv2d(middle, up).permute(1, 0, 2, 3).flip(2, 3)
        elif written:
            scale = ALPHA / RANK if kind == "first code's names" else 1.0
            expected = expected - scale * (written[1].flatten(1) @ written[0].flatten(1)).reshape(expected.shape)
        torch.testing.assert_close(ours[f"{name}.weight"], expected, rtol=1e-4, atol=1e-5)
        changed += bool(written)
    assert changed >= 2


@pytest.mark.parametrize(("write", "prefixes"), [(kohya, "kohya"), (peft, "diffusers")])
def test_text_encoders_are_changed_by_a_weight_of_their_own(folder: Path, write, prefixes: str):
    parts = ("text_encoder", "text_encoder_2") if (folder / "text_encoder_2").exists() else ("text_encoder",)
    stems = {"text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"} if len(parts) > 1 else {parts[0]: "lora_te_"}
    lora = unet_lora(folder, write, {"kohya": "lora_unet_", "diffusers": "unet."}[prefixes])
    before = {part: load_text_encoder(folder, torch.float32, CPU, part).state_dict() for part in parts}
    changes: dict[tuple[str, str], torch.Tensor] = {}
    for part in parts:
        prefix = f"{stems[part]}text_model_" if prefixes == "kohya" else f"{part}.text_model."
        for seed, (name, weight) in enumerate(
            layers(load_text_encoder(folder, torch.float32, CPU, part), TEXT_LAYERS).items()
        ):
            down, up = matrices(weight, 100 + seed)
            lora |= write(name, prefix, down, up)
            changes[part, f"{name}.weight"] = (ALPHA / RANK if write is kohya else 1.0) * 0.25 * up @ down
    write_lora(folder, lora, "weight = 0\ntext_weight = 0.25")
    for part in parts:
        ours = load_text_encoder(folder, torch.float32, CPU, part).state_dict()
        for name, tensor in ours.items():
            expected = before[part][name] + changes.get((part, name), torch.zeros(()))
            torch.testing.assert_close(tensor, expected, rtol=1e-5, atol=1e-6)
            assert torch.equal(tensor, before[part][name]) != ((part, name) in changes)
    assert {part for part, _ in changes} == set(parts)


def drawn(model: StableDiffusion, params: Params) -> bytes:
    engine = Engine(model)
    add_all(engine, [params(prompt="a cat", seed=3)])
    (picture,) = images(run(engine)).values()
    return picture


def test_a_weight_of_nothing_draws_the_same_bytes_and_any_other_does_not(
    tmp_path: Path, params: Params, make_backend: Callable[[], Any]
):
    """Also where compiled networks come from a cache that other weights have filled."""
    folder = tmp_path / "model"
    make_random_model(folder, seed=7)

    def draw() -> bytes:
        return drawn(StableDiffusion.load(locate(str(folder)), CPU, torch.float32, make_backend()), params)

    plain = draw()
    write_lora(folder, unet_lora(folder, kohya, "lora_unet_"), "weight = 0")
    assert draw() == plain
    seen = {plain}
    for weight in (0.5, 1.0):
        write_lora(folder, load_file(tmp_path / "look.safetensors"), f"weight = {weight}")
        seen.add(draw())
    other = {name: tensor + 0.1 for name, tensor in load_file(tmp_path / "look.safetensors").items()}
    write_lora(folder, other)
    assert len(seen | {draw()}) == 4


@pytest.fixture(params=["torch", "openvino"])
def make_backend(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Any]:
    if request.param == "torch":
        return lambda: None
    openvino_backend = pytest.importorskip("engine.backends.openvino_backend", exc_type=ImportError)
    return lambda: openvino_backend.OpenVinoBackend(1, CompiledCache(tmp_path / "compiled"))


def test_several_are_added_up(tmp_path: Path):
    folder = tmp_path / "model"
    make_random_model(folder, seed=7)
    write_lora(folder, unet_lora(folder, kohya, "lora_unet_"), "weight = 0.75")
    once = load_unet(folder, torch.float32, CPU).state_dict()
    (tmp_path / "loras").mkdir()
    shutil.move(tmp_path / "look.safetensors", tmp_path / "loras" / "look.safetensors")
    entry = '[[loras]]\nfile = "loras/look.safetensors"\nweight = {}\n'
    folder.with_name("model.toml").write_text(entry.format(0.5) + entry.format(0.25))
    for name, tensor in load_unet(folder, torch.float32, CPU).state_dict().items():
        torch.testing.assert_close(tensor, once[name], rtol=1e-5, atol=1e-6)
    files = network_files(folder, "unet", torch.float32, CPU)
    assert [share for _, share in files.changes] == [0.5, 0.25]
    assert network_files(folder, "vae", torch.float32, CPU).changes == ()


Q = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
DOWN, UP = {f"{Q}.lora_down.weight": torch.ones(2, 32)}, {f"{Q}.lora_up.weight": torch.ones(32, 2)}
ENTRY = {"unet.alpha_pattern": {"a": 1}}

REFUSED_FILES: dict[str, tuple[dict[str, torch.Tensor], dict[str, str], str]] = {
    "nothing": ({}, {"made_by": "nobody"}, "holds no LoRA"),
    "LoHa": ({f"{Q}.hada_w1_a": torch.ones(1)}, {}, "is not of a plain LoRA (LoHa)"),
    "LoKr": ({f"{Q}.lokr_w1": torch.ones(1)}, {}, "(LoKr)"),
    "DoRA": (DOWN | UP | {f"{Q}.dora_scale": torch.ones(1)}, {}, "(DoRA)"),
    "a whole difference": ({f"{Q}.diff": torch.ones(1)}, {}, "(whole differences of weights)"),
    "something else": ({"emb_params": torch.ones(1)}, {}, "emb_params is not of a plain LoRA (a kind that is not"),
    "one matrix": (DOWN, {}, "lacks one of its two matrices"),
    "an unknown network": ({"transformer.x.lora_A.weight": torch.ones(1)}, {}, "is of no network that is known"),
    "an unknown layer": (
        {"lora_unet_x.lora_down.weight": torch.ones(2, 32), "lora_unet_x.lora_up.weight": torch.ones(32, 2)},
        {},
        "does not suit this model: its unet has no layer x",
    ),
    "another width": (
        UP | {f"{Q}.lora_down.weight": torch.ones(2, 64)},
        {},
        "to_q.weight is a weight of 32x32, and it changes one of 32x64",
    ),
    "two ranks": (UP | {f"{Q}.lora_down.weight": torch.ones(3, 32)}, {}, "the ranks of its matrices differ (3 and 2)"),
    "no number": (DOWN | UP | {f"{Q}.alpha": torch.tensor(float("nan"))}, {}, "alpha is not one finite number"),
    "a second encoder": (
        DOWN | UP | {"lora_te2_a.lora_down.weight": torch.ones(1), "lora_te2_a.lora_up.weight": torch.ones(1)},
        {},
        "changes the text_encoder_2, which this model lacks",
    ),
    "other arithmetic": (DOWN | UP, {"lora_adapter_metadata": json.dumps(ENTRY)}, "unet.alpha_pattern is not support"),
    "damaged notes": (DOWN | UP, {"lora_adapter_metadata": "[1]"}, "lora_adapter_metadata is not a JSON object"),
}


@pytest.mark.parametrize(("lora", "notes", "message"), REFUSED_FILES.values(), ids=REFUSED_FILES.keys())
def test_a_file_that_cannot_be_used_whole_is_refused_by_name(tmp_path: Path, lora, notes, message: str):
    make_random_model(tmp_path / "model")
    write_lora(tmp_path / "model", lora, **notes)
    with pytest.raises(ModelLoadError) as caught:
        StableDiffusion.load(locate(str(tmp_path / "model")), CPU, torch.float32)
    assert message in str(caught.value)
    assert "look.safetensors" in str(caught.value)


REFUSED_WORDS = {
    "no table": ('loras = ["look.safetensors"]', "loras must be tables"),
    "no file": ("[[loras]]\nweight = 1", "loras.file must be a file in"),
    "a file that is not there": ('[[loras]]\nfile = "look"', "loras.file must be a file in"),
    "a path out of the folder": ('[[loras]]\nfile = "../look.safetensors"', "loras.file must be a file in"),
    "an absolute path": ('[[loras]]\nfile = "/etc/passwd"', "loras.file must be a file in"),
    "too much": (
        '[[loras]]\nfile = "look.safetensors"\nweight = 5',
        "loras.weight must be a number from -4 to 4, not 5",
    ),
    "not a number": ('[[loras]]\nfile = "look.safetensors"\ntext_weight = nan', "loras.text_weight must be a number"),
    "an unknown word": ('[[loras]]\nfile = "look.safetensors"\nstrength = 1', "loras.strength is not known"),
    "too many": ('[[loras]]\nfile = "look.safetensors"\n' * 9, "at most 8 loras, not 9"),
}


@pytest.mark.parametrize(("side", "message"), REFUSED_WORDS.values(), ids=REFUSED_WORDS.keys())
def test_a_side_file_that_names_none_is_refused(tmp_path: Path, side: str, message: str):
    make_random_model(tmp_path / "model")
    write_lora(tmp_path / "model", DOWN | UP)
    (tmp_path / "model.toml").write_text(side)
    with pytest.raises(ModelLoadError) as caught:
        locate(str(tmp_path / "model"))
    assert message in str(caught.value)
    assert "model.toml" in str(caught.value)
