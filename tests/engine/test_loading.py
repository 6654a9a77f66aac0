"""Whether loaded parts are what diffusers and transformers would load, and damaged or foreign files are refused."""

from __future__ import annotations

import json
import shutil
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

from engine.errors import ModelLoadError
from engine.models.loading import load_scheduler_config, load_text_encoder, load_unet, load_vae
from engine.models.prompt_cutter import load_tokenizer
from engine.models.random_model import make_random_model

CPU = torch.device("cpu")
DREAMLET = Path(__file__).resolve().parents[2] / "models" / "dreamlet"
UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT_ENCODER = "text_encoder/model.safetensors"


@pytest.fixture(scope="module")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loading") / "tiny"
    make_random_model(folder, seed=3)
    return folder


@pytest.fixture
def folder(random_model: Path, tmp_path: Path) -> Path:
    """A copy of the random model, to be damaged."""
    return shutil.copytree(random_model, tmp_path / "model")


def edit_weights(path: Path, edit) -> None:
    weights = load_file(path)
    save_file(edit(weights), path, {"format": "pt"})


def edit_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def assert_same_weights(ours: torch.nn.Module, theirs: torch.nn.Module) -> None:
    expected = {name.removeprefix("text_model."): tensor for name, tensor in theirs.state_dict().items()}
    found = ours.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert not tensor.is_meta, name
        assert tensor.dtype == expected[name].dtype, name
        assert torch.equal(tensor, expected[name]), name
    assert not list(ours.buffers()), "nothing but weights was loaded"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("model", ["random", "dreamlet"])
def test_every_part_is_what_the_libraries_load(random_model, model, dtype):
    """
    One model has the large autoencoder, float32 weights and the text encoder's old names; the other the tiny
    autoencoder, float16 weights and today's names.
    """
    path = random_model if model == "random" else DREAMLET
    autoencoder = AutoencoderKL if model == "random" else AutoencoderTiny
    assert_same_weights(
        load_unet(path, dtype, CPU),
        UNet2DConditionModel.from_pretrained(path / "unet", torch_dtype=dtype, low_cpu_mem_usage=False),
    )
    assert_same_weights(
        load_vae(path, dtype, CPU),
        autoencoder.from_pretrained(path / "vae", torch_dtype=dtype, low_cpu_mem_usage=False),
    )
    theirs = CLIPTextModel.from_pretrained(path / "text_encoder", dtype=dtype)
    assert_same_weights(load_text_encoder(path, dtype, CPU), theirs)


@pytest.mark.parametrize("path", [None, DREAMLET], ids=["random", "dreamlet"])
def test_the_text_encoder_reads_a_prompt_as_the_library_s_does(random_model, path):
    path = path or random_model
    tokenizer = load_tokenizer(path)
    tokens = torch.tensor([tokenizer.padded(tokenizer.tokens("a cat on a mat"))])
    assert tokens.shape == (1, 77)
    expected = CLIPTextModel.from_pretrained(path / "text_encoder", dtype=torch.float32)(tokens)[0]
    torch.testing.assert_close(load_text_encoder(path, torch.float32, CPU)(tokens), expected, rtol=1e-6, atol=1e-6)


def test_parts_are_frozen_and_laid_out_for_drawing(random_model):
    parts = [load(random_model, torch.float32, CPU) for load in (load_unet, load_vae, load_text_encoder)]
    assert not any(part.training for part in parts)
    assert not any(parameter.requires_grad for part in parts for parameter in part.parameters())
    for part in parts[:2]:
        convolutions = [parameter for parameter in part.parameters() if parameter.ndim == 4]
        assert convolutions
        assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in convolutions)


def test_loading_makes_no_network_attempt(random_model, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a network attempt")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    for path in (random_model, DREAMLET):
        load_tokenizer(path)
        load_text_encoder(path, torch.float32, CPU)
        load_unet(path, torch.float32, CPU)
        load_vae(path, torch.float32, CPU)


def test_loading_leaves_the_random_numbers_of_others_alone(random_model):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    load_unet(random_model, torch.float32, CPU)
    assert torch.equal(torch.rand(1), expected)


def test_overwriting_the_files_does_not_change_a_loaded_model(folder):
    unet = load_unet(folder, torch.float32, CPU)
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    path = folder / UNET
    with path.open("r+b") as file:
        file.write(b"\xff" * path.stat().st_size)
    assert all(torch.equal(tensor, before[name]) for name, tensor in unet.state_dict().items())


# --- variants and old files -------------------------------------------------------------------------------------------


def add_fp16_variant(folder: Path) -> None:
    """A variant whose weights are all one, to be told from the others."""
    ones = {name: torch.ones_like(weight).half() for name, weight in load_file(folder / UNET).items()}
    save_file(ones, (folder / UNET).with_suffix(".fp16.safetensors"))


def is_all_ones(module: torch.nn.Module) -> bool:
    return all(bool((parameter == 1).all()) for parameter in module.parameters())


@pytest.mark.parametrize(
    ("dtype", "takes_variant"), [(torch.float16, True), (torch.float32, False), (torch.bfloat16, False)]
)
def test_the_half_precision_variant_serves_half_precision(folder, dtype, takes_variant):
    add_fp16_variant(folder)
    unet = load_unet(folder, dtype, CPU)
    assert unet.conv_in.weight.dtype == dtype
    assert is_all_ones(unet) == takes_variant


def test_a_lone_variant_serves_every_precision(folder):
    add_fp16_variant(folder)
    (folder / UNET).unlink()
    unet = load_unet(folder, torch.float32, CPU)
    assert unet.conv_in.weight.dtype == torch.float32
    assert is_all_ones(unet)


@pytest.mark.parametrize("as_convolution", [False, True])
def test_an_old_autoencoder_s_attention_is_read_by_its_old_names(folder, as_convolution):
    expected = load_vae(folder, torch.float32, CPU).state_dict()
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def grow_old(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        old = {}
        for name, weight in weights.items():
            for new_part, old_part in names.items():
                if f".{new_part}." in name:
                    is_widened = as_convolution and weight.ndim == 2
                    old[name.replace(new_part, old_part)] = weight[..., None, None] if is_widened else weight
                    break
            else:
                old[name] = weight
        assert old.keys() != weights.keys()
        return old

    edit_weights(folder / VAE, grow_old)
    found = load_vae(folder, torch.float32, CPU).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_an_old_text_encoder_s_stored_positions_are_not_needed(folder):
    expected = load_text_encoder(folder, torch.float32, CPU).state_dict()
    positions = {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    edit_weights(folder / TEXT_ENCODER, lambda weights: weights | positions)
    encoder = load_text_encoder(folder, torch.float32, CPU)
    assert all(torch.equal(encoder.state_dict()[name], tensor) for name, tensor in expected.items())


# --- damaged and foreign files ----------------------------------------------------------------------------------------


def refused(load, folder: Path) -> str:
    with pytest.raises(ModelLoadError) as caught:
        load(folder, torch.float32, CPU)
    return str(caught.value)


@pytest.mark.parametrize("length", [0, 7, 1000, 100_000, -1])
def test_a_truncated_file_is_named(folder, length):
    path = folder / UNET
    path.write_bytes(path.read_bytes()[:length])
    assert f"{path} is damaged" in refused(load_unet, folder)


def test_a_file_that_is_something_else_is_named(folder):
    (folder / VAE).write_bytes(b"\x80\x04PK pretend pickle" * 1000)
    assert f"{folder / VAE} is damaged" in refused(load_vae, folder)


def test_missing_tensors_are_named_up_to_five(folder):
    edit_weights(folder / UNET, lambda weights: dict(list(weights.items())[7:]))
    message = refused(load_unet, folder)
    assert f"{folder / UNET} lacks tensors" in message
    assert message.endswith(" and 2 more")
    assert message.count(",") == 4


def test_unknown_tensors_are_named(folder):
    edit_weights(folder / TEXT_ENCODER, lambda weights: weights | {"adapter.weight": torch.ones(1)})
    assert "does not know: adapter.weight" in refused(load_text_encoder, folder)


def test_a_tensor_of_the_wrong_shape_is_named(folder):
    edit_weights(folder / UNET, lambda weights: weights | {"conv_in.bias": torch.ones(5)})
    assert refused(load_unet, folder).endswith("conv_in.bias must have the shape [32], not [5]")


def test_a_tensor_of_whole_numbers_is_named(folder):
    edit_weights(folder / UNET, lambda weights: weights | {"conv_in.bias": torch.ones(32, dtype=torch.int8)})
    assert "conv_in.bias must hold floating-point numbers" in refused(load_unet, folder)


def test_a_tensor_that_is_there_under_both_names_is_named(folder):
    bare = {"final_layer_norm.bias": torch.ones(32)}
    edit_weights(folder / TEXT_ENCODER, lambda weights: weights | bare)
    assert "final_layer_norm.bias twice" in refused(load_text_encoder, folder)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"norm_num_groups": 7}, " does not describe a valid model: num_channels"),
        ({"act_fn": "no such"}, ": act_fn must be 'silu' or 'swish', not 'no such'"),
        ({"layers_per_block": "two"}, ": layers_per_block must be a whole number"),
    ],
)
def test_a_configuration_that_cannot_be_built_is_named(folder, values, words):
    edit_json(folder / "unet" / "config.json", **values)
    assert f"{folder}/unet/config.json{words}" in refused(load_unet, folder)


def test_weights_as_pickle_are_refused(folder):
    (folder / UNET).rename(folder / "unet" / "diffusion_pytorch_model.bin")
    assert "only .safetensors is read" in refused(load_unet, folder)


def test_a_model_of_another_kind_is_refused_by_every_loader(folder):
    edit_json(folder / "unet" / "config.json", addition_embed_type="text_time")
    for load in (load_unet, load_vae, load_text_encoder):
        assert "belongs to Stable Diffusion XL" in refused(load, folder)
    for load in (load_tokenizer, load_scheduler_config):
        with pytest.raises(ModelLoadError, match="belongs to Stable Diffusion XL"):
            load(folder)


# --- tokenizer and scheduler ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["vocab.json", "merges.txt", "tokenizer_config.json"])
def test_a_damaged_tokenizer_is_named(folder, file):
    (folder / "tokenizer" / file).write_text("{ no")
    with pytest.raises(ModelLoadError, match=f"{folder}/tokenizer"):
        load_tokenizer(folder)


def test_a_tokenizer_that_knows_more_than_the_text_encoder_is_refused(folder):
    edit_json(folder / "text_encoder" / "config.json", vocab_size=1000)
    with pytest.raises(ModelLoadError, match="the token 1023, but the text encoder knows only 1000"):
        load_tokenizer(folder)


def test_a_tokenizer_of_another_class_is_refused(folder):
    edit_json(folder / "tokenizer" / "tokenizer_config.json", tokenizer_class="EvilTokenizer")
    with pytest.raises(ModelLoadError, match="EvilTokenizer"):
        load_tokenizer(folder)


def test_the_scheduler_configuration_comes_as_it_stands(tmp_path):
    make_random_model(tmp_path, prediction_type="v_prediction")
    stored = json.loads((tmp_path / "scheduler" / "scheduler_config.json").read_text())
    assert load_scheduler_config(tmp_path) == stored
    assert stored["prediction_type"] == "v_prediction"


# --- random models ----------------------------------------------------------------------------------------------------


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Networks this small only lose time when several threads wait for each other."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("vae", ["kl", "tiny"])
def test_a_random_model_draws_in_the_library_s_own_pipeline(tmp_path, vae):
    """Every wish shows in its pictures, or it would be of no use to tests."""
    make_random_model(tmp_path, seed=1, vae=vae)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # diffusers' own
        pipeline = StableDiffusionPipeline.from_pretrained(tmp_path, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)

    def draw(prompt: str = "a cat", *, seed: int = 1, guidance_scale: float = 7.0, steps: int = 2) -> torch.Tensor:
        images = pipeline(
            prompt,
            generator=torch.Generator().manual_seed(seed),
            guidance_scale=guidance_scale,
            num_inference_steps=steps,
            output_type="np",
        ).images
        return torch.from_numpy(images[0]) * 255

    picture = draw()
    assert picture.shape == (64, 64, 3)
    is_saturated = (picture <= 0) | (picture >= 255)
    assert is_saturated.float().mean() < 0.5
    assert picture.std() > 10
    for other in (draw("a cut"), draw(seed=2), draw(guidance_scale=6.0), draw(steps=3)):
        assert (picture - other).abs().mean() > 0.3


def test_a_random_model_is_the_same_for_the_same_seed_only(random_model, tmp_path):
    make_random_model(tmp_path / "same", seed=3)
    make_random_model(tmp_path / "other", seed=4)
    for name in (UNET, VAE, TEXT_ENCODER):
        assert (tmp_path / "same" / name).read_bytes() == (random_model / name).read_bytes()
        assert (tmp_path / "other" / name).read_bytes() != (random_model / name).read_bytes()


def test_a_random_model_can_be_stored_in_half_precision(tmp_path):
    make_random_model(tmp_path, dtype=torch.float16)
    assert {weight.dtype for weight in load_file(tmp_path / UNET).values()} == {torch.float16}
