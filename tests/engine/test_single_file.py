"""A model in one file draws what the same model in a folder does; and what is in a file is recognised, or refused."""

from __future__ import annotations

import json
import shutil
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders import single_file_utils
from safetensors.torch import load_file, save_file

from engine.engine import Engine
from engine.errors import ModelLoadError
from engine.models import single_file
from engine.models.clip_vocabulary import clip_vocabulary
from engine.models.json_file import read_json
from engine.models.layout import read_configs
from engine.models.ldm_names import Source, autoencoder_source, open_clip_source, unet_source
from engine.models.loading import load_text_encoder, load_unet, load_vae
from engine.models.locate import locate
from engine.models.options import Options
from engine.models.random_model import make_random_model
from engine.models.single_file import read_single_file
from engine.models.stable_diffusion import StableDiffusion
from engine.models.unet_plan import UNetPlan
from engine.networks.autoencoder import AutoencoderKL
from engine.networks.clip import TextEncoder
from engine.networks.unet import UNet
from engine.params import GenerationParams
from tests.engine.drawing import Params, add_all, images, run

CPU = torch.device("cpu")
FAMILIES = {"sd1": "tiny", "sd2": "tiny-2", "sdxl": "tiny-xl"}


def template(name: str) -> dict[str, Any]:
    return json.loads((Path(single_file.__file__).parent / "configs" / f"{name}.json").read_text())


# --- names, in real sizes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_every_name_of_a_real_model_is_what_diffusers_makes_of_it(family: str):
    """
    The whole layout, without memory for weights: our name -> the file's name -> diffusers' converter -> our name.
    """
    config = template(family)
    with torch.device("meta"):
        plan = UNetPlan.read(Options(Path("unet"), config["unet"]))
        unet = UNet(plan).state_dict()
        vae = AutoencoderKL(Options(Path("vae"), config["vae"])).state_dict()
    there = {f"model.diffusion_model.{unet_source(name, plan).name}": tensor for name, tensor in unet.items()}
    back = single_file_utils.convert_ldm_unet_checkpoint(there, config["unet"])
    assert len(there) == len(unet) == {"sd1": 686, "sd2": 686, "sdxl": 1680}[family]
    assert {name: id(tensor) for name, tensor in back.items()} == {name: id(tensor) for name, tensor in unet.items()}
    there = {f"first_stage_model.{autoencoder_source(name, 4).name}": tensor for name, tensor in vae.items()}
    back = single_file_utils.convert_ldm_vae_checkpoint(there, config["vae"])
    assert {name: id(tensor) for name, tensor in back.items()} == {name: id(tensor) for name, tensor in vae.items()}


def test_a_text_encoder_of_open_clip_is_what_diffusers_makes_of_it():
    config = template("sdxl")["text_encoder_2"] | {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    config |= {"num_hidden_layers": 2, "projection_dim": 32, "vocab_size": 50}
    encoder = TextEncoder(Options(Path("text_encoder_2"), config)).state_dict()
    there = exported(encoder, open_clip_source, "conditioner.embedders.1.model.")
    model = type("Model", (), {"config": type("Config", (), {"hidden_size": 32})})
    back = single_file_utils.convert_open_clip_checkpoint(model, there, "conditioner.embedders.1.model.")
    back = {name.removeprefix("text_model."): tensor for name, tensor in back.items()}
    assert back.keys() - {"embeddings.position_ids"} == encoder.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in encoder.items())


# --- a whole model ----------------------------------------------------------------------------------------------------


def exported(weights: dict[str, torch.Tensor], source_of: Any, prefix: str) -> dict[str, torch.Tensor]:
    """Weights under the names of a single file."""
    there: dict[str, torch.Tensor] = {}
    for name, tensor in weights.items():
        source = source_of(name)
        key = prefix + source.name
        if source.third is None:
            there[key] = (tensor.T if source.is_transposed else tensor).contiguous().clone()
        else:
            thirds = there.setdefault(key, tensor.new_zeros(3 * tensor.shape[0], *tensor.shape[1:]))
            thirds.chunk(3)[source.third].copy_(tensor)
    return there


def write_single_file(folder: Path, path: Path, family: str, *, has_vae: bool = True) -> dict[str, torch.Tensor]:
    """The model in a folder as one file, with what is found in many."""
    plan = UNetPlan.read(Options(folder, read_configs(folder).unet))
    weights = exported(
        load_unet(folder, torch.float32, CPU).state_dict(), lambda n: unet_source(n, plan), "model.diffusion_model."
    )
    vae = load_vae(folder, torch.float32, CPU)
    assert isinstance(vae, AutoencoderKL)
    if has_vae:
        weights |= exported(
            vae.state_dict(), lambda name: autoencoder_source(name, len(vae.channels)), "first_stage_model."
        )
        for name, tensor in weights.items():
            if ".mid.attn_1." in name and tensor.ndim == 2:
                weights[name] = tensor[..., None, None].clone()  # attention once was a 1x1 convolution
    first = load_text_encoder(folder, torch.float32, CPU).state_dict()
    if family == "sd2":
        weights |= exported(first, open_clip_source, "cond_stage_model.model.")
    elif family == "sd1":
        weights |= exported(first, Source, "cond_stage_model.transformer.text_model.")
        weights["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77.0)[None]
    else:
        weights |= exported(first, Source, "conditioner.embedders.0.transformer.text_model.")
        second = load_text_encoder(folder, torch.float32, CPU, "text_encoder_2").state_dict()
        weights |= exported(second, open_clip_source, "conditioner.embedders.1.model.")
    weights |= {"betas": torch.zeros(1000), "model_ema.decay": torch.zeros(1), "somebody.else": torch.zeros(1)}
    save_file(weights, path)
    return weights


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def folder(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny model of the family; and what the server knows of the family is as tiny."""
    folder = tmp_path / "folder"
    make_random_model(folder, arch=FAMILIES[family], seed=4)
    parts = {part: json.loads((folder / part / "config.json").read_text()) for part in ("unet", "vae", "text_encoder")}
    if family == "sdxl":
        parts["text_encoder_2"] = json.loads((folder / "text_encoder_2" / "config.json").read_text())
    parts["scheduler"] = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    real = single_file._template
    monkeypatch.setattr(single_file, "_template", lambda name: parts if name == family else real(name))
    shutil.copytree(folder / "tokenizer", tmp_path / "tokenizer")
    return folder


def loaded(path: Path) -> StableDiffusion:
    return StableDiffusion.load(locate(str(path)), CPU, torch.float32)


def test_a_single_file_draws_what_the_folder_does_without_a_network(
    family: str, folder: Path, tmp_path: Path, params: Params, monkeypatch: pytest.MonkeyPatch
):
    """Bit for bit: the same weights at the same places, the same texts, noise levels and scales."""
    path = tmp_path / "model.safetensors"
    write_single_file(folder, path, family)
    if family == "sd2":
        path.with_suffix(".toml").write_text('prediction_type = "epsilon"\n')

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a network attempt")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    pictures = []
    for place in (folder, path):
        engine = Engine(loaded(place))
        add_all(engine, [params(negative_prompt="a dog"), params(seed=3, sampler="Euler a", noise_schedule="default")])
        pictures.append(images(run(engine)))
    assert pictures[0] == pictures[1]


def test_a_lora_changes_a_single_file_as_its_folder(family: str, folder: Path, tmp_path: Path):
    path = tmp_path / "model.safetensors"
    write_single_file(folder, path, family)
    before = load_unet(path, torch.float32, CPU).state_dict()
    layer = "mid_block.attentions.0.transformer_blocks.0.attn1.to_k"
    width = before[f"{layer}.weight"].shape[0]
    matrices = {"lora_A": torch.ones(2, width), "lora_B": torch.ones(width, 2)}
    save_file({f"unet.{layer}.{name}.weight": tensor for name, tensor in matrices.items()}, tmp_path / "a.safetensors")
    for place in (folder, path):
        place.with_name(f"{place.stem}.toml").write_text('[[loras]]\nfile = "a.safetensors"\nweight = 0.5\n')
    ours, same = (load_unet(place, torch.float32, CPU).state_dict() for place in (path, folder))
    assert [name for name, tensor in ours.items() if not torch.equal(tensor, before[name])] == [f"{layer}.weight"]
    assert all(torch.equal(tensor, same[name]) for name, tensor in ours.items())


@pytest.mark.parametrize("family", ["sd1"], indirect=True)
def test_another_autoencoder_takes_the_place_of_the_model_s_own(folder: Path, tmp_path: Path):
    """In any of the three forms in which people have them; beside a model without one, too."""
    other = tmp_path / "other"
    make_random_model(other, arch="tiny", seed=9)
    expected = load_vae(other, torch.float32, CPU).state_dict()
    names = {f"{prefix}.safetensors": prefix for prefix in ("", "first_stage_model.")}
    for name, prefix in names.items():
        weights = exported(expected, lambda n: autoencoder_source(n, 4), prefix)
        save_file(weights, tmp_path / (f"vae{name}" if prefix == "" else f"vae-{name}"))
    shutil.copy(other / "vae" / "diffusion_pytorch_model.safetensors", tmp_path / "vae-diffusers.safetensors")
    shutil.copytree(other / "vae", tmp_path / "vae")
    write_single_file(folder, tmp_path / "model.safetensors", "sd1", has_vae=False)
    with pytest.raises(ModelLoadError, match=r'has no vae in it .* name one in .*model.toml: vae = "NAME"'):
        locate(str(tmp_path / "model.safetensors"))
    for vae in ("vae.safetensors", "vae-first_stage_model..safetensors", "vae-diffusers.safetensors", "vae"):
        for model in ("model.safetensors", "folder"):
            (tmp_path / Path(model).with_suffix(".toml").name).write_text(f'vae = "{vae}"\n')
            found = load_vae(locate(str(tmp_path / model)).path, torch.float32, CPU).state_dict()
            assert all(torch.equal(found[name], tensor) for name, tensor in expected.items()), (vae, model)
    config = json.loads((tmp_path / "vae" / "config.json").read_text()) | {"scaling_factor": 0.13025}
    (tmp_path / "vae" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelLoadError, match=r"scaling_factor must be 0\.18215"):
        locate(str(tmp_path / "model.safetensors"))


# --- recognition ------------------------------------------------------------------------------------------------------

FIRST = "model.diffusion_model.input_blocks.0.0.weight"
TEXT = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"


def minimal(**shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """The tensors by which a Stable Diffusion 1 is recognised."""
    wanted = {FIRST: (1, 4, 1, 1), TEXT: (1, 768), "first_stage_model.x": (1,), "cond_stage_model.transformer.x": (1,)}
    return {name: torch.zeros(shape) for name, shape in (wanted | shapes).items()}


XL = {TEXT: (1, 2048), "conditioner.embedders.0.transformer.x": (1,), "conditioner.embedders.1.model.x": (1,)}
SD2 = {TEXT: (1, 1024), "cond_stage_model.model.x": (1,)}
RECOGNISED: dict[str, tuple[dict[str, tuple[int, ...]], dict[str, str], str, dict[str, Any]]] = {
    "SD 1": ({}, {}, "", {"prediction_type": "epsilon", "in_channels": 4, "cross_attention_dim": 768}),
    "SD 1 inpainting": ({FIRST: (1, 9, 1, 1)}, {}, "", {"in_channels": 9, "cross_attention_dim": 768}),
    "SD 2": (SD2, {}, "", {"prediction_type": "v_prediction", "cross_attention_dim": 1024}),
    "SD 2 that says otherwise": (SD2, {"modelspec.prediction_type": "epsilon"}, "", {"prediction_type": "epsilon"}),
    "SD 2 whose owner says otherwise": (SD2, {}, 'prediction_type = "epsilon"', {"prediction_type": "epsilon"}),
    "SD 2 inpainting": (SD2 | {FIRST: (1, 9, 1, 1)}, {}, "", {"prediction_type": "epsilon", "in_channels": 9}),
    "SDXL": (XL, {}, "", {"prediction_type": "epsilon", "cross_attention_dim": 2048}),
    "SDXL of velocity": (
        XL | {"v_pred": (0,), "ztsnr": (0,)},
        {},
        "",
        {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
    ),
    "SDXL of a note": (XL, {"modelspec.prediction_type": "v"}, "", {"prediction_type": "v_prediction"}),
    "an owner who knows better": (
        XL | {"ztsnr": (0,)},
        {},
        "zero_terminal_snr = false",
        {"rescale_betas_zero_snr": False},
    ),
}


@pytest.mark.parametrize(("shapes", "notes", "side", "expected"), RECOGNISED.values(), ids=RECOGNISED.keys())
def test_a_family_is_read_off_the_header(tmp_path: Path, shapes, notes, side, expected):
    path = tmp_path / "model.safetensors"
    save_file(minimal(**shapes), path, notes)
    path.with_suffix(".toml").write_text(side)
    configs = read_configs(path)
    found = {**configs.unet, **configs.scheduler}
    assert {name: found[name] for name in expected} == expected


REFUSED: dict[str, tuple[dict[str, tuple[int, ...]], str, str]] = {
    "no model": ({FIRST: (1,)}, "", "is not a checkpoint of Stable Diffusion"),
    "depth": ({FIRST: (1, 5, 1, 1)}, "", "a depth-to-image model (5 input channels) is not served"),
    "upscaler": ({FIRST: (1, 7, 1, 1)}, "", "an upscaling model"),
    "pix2pix": ({FIRST: (1, 8, 1, 1)}, "", "an instruct-pix2pix model"),
    "refiner": ({TEXT: (1, 1280), "conditioner.embedders.0.model.x": (1,)}, "", "a refiner of Stable Diffusion XL"),
    "another family": ({TEXT: (1, 4096)}, "", "is of no known family: its UNet reads texts of [4096]"),
    "no text encoder": (SD2 | {"cond_stage_model.model.x": (0,), TEXT: (1, 2048)}, "", "is of no known family"),
    "an unknown word": ({}, "lora = 1", "lora must not be set"),
    "no TOML": ({}, "=", "is damaged: it is not valid TOML"),
    "an unknown prediction": ({}, 'prediction_type = "sample"', "prediction_type must be epsilon or v_prediction"),
    "a path": ({}, 'vae = "../vae"', "vae must be the name of a file or folder"),
    "no number": ({}, "zero_terminal_snr = 1", "zero_terminal_snr must be true or false"),
    "an unknown default": ({}, "defaults.seed = 1", "defaults.seed is not known"),
    "a default of no kind": ({}, "defaults.width = 1.5", "defaults.width must be a whole number"),
}


@pytest.mark.parametrize(("shapes", "side", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_served_is_refused_by_name(tmp_path: Path, shapes, side, message):
    path = tmp_path / "model.safetensors"
    save_file(minimal(**shapes), path)
    path.with_suffix(".toml").write_text(side)
    with pytest.raises(ModelLoadError) as caught:
        read_single_file(path)
    assert message in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 8, b"\x10" + bytes(7) + b"no JSON at all..", b"\x02" + bytes(7) + b"[]"]
)
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelLoadError, match=r"model\.safetensors is damaged"):
        read_single_file(path)


@pytest.mark.parametrize("family", ["sd1"], indirect=True)
def test_what_a_file_lacks_is_named(folder: Path, tmp_path: Path):
    path = tmp_path / "model.safetensors"
    weights = write_single_file(folder, path, "sd1")
    del weights["model.diffusion_model.out.2.bias"]
    save_file(weights, path)
    with pytest.raises(ModelLoadError, match=r"lacks tensors .*: model\.diffusion_model\.out\.2\.bias$"):
        load_unet(path, torch.float32, CPU)
    assert load_file(path)


def with_clip_s_vocabulary(folder: Path, family: str) -> None:
    """Make text encoders as wide as CLIP's vocabulary, and write that into the folder as models have it."""
    vocabulary, merges = clip_vocabulary()
    for number, part in enumerate(read_configs(folder).text_encoders):
        path = folder / part / "model.safetensors"
        weights = load_file(path)
        (name,) = (name for name in weights if name.endswith("token_embedding.weight"))
        generator = torch.Generator().manual_seed(number)
        weights[name] = torch.randn(len(vocabulary), weights[name].shape[1], generator=generator)
        save_file(weights, path)
        tokenizer = folder / part.replace("text_encoder", "tokenizer")
        shutil.rmtree(tokenizer)
        tokenizer.mkdir()
        (tokenizer / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
        (tokenizer / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
        if family != "sd1" and not (family == "sdxl" and part == "text_encoder"):
            (tokenizer / "tokenizer_config.json").write_text('{"pad_token": "!"}')
        for config in (read_json(folder / part / "config.json"), single_file._template(family)[part]):
            config["vocab_size"] = len(vocabulary)
            (folder / part / "config.json").write_text(json.dumps(config))


def test_a_single_file_alone_draws_what_the_folder_does(family: str, folder: Path, tmp_path: Path, params: Params):
    """One file and nothing beside it: the vocabulary is the server's."""
    with_clip_s_vocabulary(folder, family)
    path = tmp_path / "alone" / "model.safetensors"
    path.parent.mkdir()
    write_single_file(folder, path, family)
    if family == "sd2":
        path.with_suffix(".toml").write_text('prediction_type = "epsilon"\n')
    wish = params(prompt="a photo of a (cat:1.2)", negative_prompt="fog", prompt_syntax="weighted")
    drawn = images_of(path, wish)
    assert drawn == images_of(folder, wish)
    assert images_of(path, replace(wish, prompt="a photo of a (dog:1.2)")) != drawn


def images_of(path: Path, wish: GenerationParams) -> object:
    engine = Engine(loaded(path))
    add_all(engine, [wish])
    return images(run(engine))
