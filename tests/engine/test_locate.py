"""Whether a model is found where it lies, and its absence is told in words that help."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import ModelLoadError, ModelNotFoundError
from engine.models.locate import ModelFolder, locate
from engine.models.random_model import make_random_model

ORIGINAL = "runwayml/stable-diffusion-v1-5"
SUCCESSOR = "stable-diffusion-v1-5/stable-diffusion-v1-5"
REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in this file may so much as make a socket."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a network attempt")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def write_model(folder: Path) -> Path:
    """The files of a Stable Diffusion 1.5, as far as `locate` looks at them: its weights are empty."""
    files = {
        "model_index.json": {"_class_name": "StableDiffusionPipeline", "safety_checker": [None, None]},
        "unet/config.json": {"_class_name": "UNet2DConditionModel", "sample_size": 64, "cross_attention_dim": 768},
        "vae/config.json": {"_class_name": "AutoencoderKL", "block_out_channels": [128, 256, 512, 512]},
        "text_encoder/config.json": {"architectures": ["CLIPTextModel"], "hidden_size": 768},
        "scheduler/scheduler_config.json": {"beta_schedule": "scaled_linear"},
        "tokenizer/vocab.json": {},
        "tokenizer/merges.txt": {},
        "unet/diffusion_pytorch_model.safetensors": {},
        "vae/diffusion_pytorch_model.safetensors": {},
        "text_encoder/model.safetensors": {},
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    return folder


def cached(cache: Path, model_id: str) -> Path:
    """A model in the Hugging Face cache; its snapshot folder."""
    repository = cache / f"models--{model_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(REVISION)
    return write_model(repository / "snapshots" / REVISION)


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_folder_is_found_by_its_absolute_path(tmp_path):
    folder = write_model(tmp_path / "my model")
    assert locate(str(folder)) == ModelFolder(str(folder), folder, 512, 512, pixels_per_latent=8)


def test_a_folder_is_found_relative_to_the_working_directory(tmp_path, monkeypatch):
    folder = write_model(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    assert locate("mine").path == folder


def test_the_built_in_model_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = locate("models/dreamlet")
    assert found.path == Path(__file__).resolve().parents[2] / "models" / "dreamlet"
    assert (found.native_height, found.native_width, found.pixels_per_latent) == (256, 256, 16)


@pytest.mark.parametrize(("model_id", "pixels_per_latent"), [("fake", 8), ("fake-16", 16)])
def test_a_fake_model_needs_no_folder(tmp_path, model_id, pixels_per_latent):
    found = locate(model_id, cache_dir=tmp_path)
    assert found == ModelFolder(model_id, None, 512, 512, pixels_per_latent=pixels_per_latent)


@pytest.mark.parametrize(("num_blocks", "pixels_per_latent"), [(2, 2), (3, 4), (5, 16), (6, 32)])
def test_what_a_latent_stands_for_is_read_off_the_autoencoder(tmp_path, num_blocks, pixels_per_latent):
    folder = write_model(tmp_path)
    edit(folder / "unet" / "config.json", sample_size=16, in_channels=16, out_channels=16)
    edit(folder / "vae" / "config.json", latent_channels=16, block_out_channels=[32] * num_blocks)
    found = locate(str(folder))
    assert (found.pixels_per_latent, found.native_width) == (pixels_per_latent, 16 * pixels_per_latent)


def test_what_diffusers_writes_for_no_limit_is_taken(tmp_path):
    edit(write_model(tmp_path) / "scheduler" / "scheduler_config.json", lambda_min_clipped=float("-inf"))
    assert locate(str(tmp_path)).path == tmp_path


def test_the_prompt_may_be_read_as_one_vector_too(tmp_path):
    edit(write_model(tmp_path) / "unet" / "config.json", addition_embed_type="text")
    assert locate(str(tmp_path)).path == tmp_path


def test_the_native_size_is_read_as_height_and_width(tmp_path):
    folder = write_model(tmp_path / "wide")
    edit(folder / "unet" / "config.json", sample_size=[48, 96])
    found = locate(str(folder))
    assert (found.native_height, found.native_width) == (384, 768)


def test_an_id_is_found_in_the_cache(tmp_path):
    snapshot = cached(tmp_path, "someone/paints.v1")
    assert locate("someone/paints.v1", cache_dir=tmp_path).path == snapshot


@pytest.mark.parametrize(("asked", "there"), [(ORIGINAL, SUCCESSOR), (SUCCESSOR, ORIGINAL)])
def test_the_two_names_of_stable_diffusion_1_5_stand_for_each_other(tmp_path, asked, there):
    snapshot = cached(tmp_path, there)
    assert locate(asked, cache_dir=tmp_path) == ModelFolder(asked, snapshot, 512, 512, pixels_per_latent=8)


def test_of_two_cached_names_the_one_asked_for_is_taken(tmp_path):
    snapshots = {name: cached(tmp_path, name) for name in (ORIGINAL, SUCCESSOR)}
    assert [locate(name, cache_dir=tmp_path).path for name in snapshots] == list(snapshots.values())


def test_a_whole_copy_stands_in_for_one_that_is_only_partly_there(tmp_path):
    (cached(tmp_path, ORIGINAL) / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    whole = cached(tmp_path, SUCCESSOR)
    assert locate(ORIGINAL, cache_dir=tmp_path).path == whole


def test_a_cache_without_main_gives_its_only_revision(tmp_path):
    snapshot = cached(tmp_path, ORIGINAL)
    (snapshot.parents[1] / "refs" / "main").rename(snapshot.parents[1] / "refs" / "fp16")
    assert locate(ORIGINAL, cache_dir=tmp_path).path == snapshot


def test_half_precision_weights_alone_are_enough(tmp_path):
    snapshot = cached(tmp_path, ORIGINAL)
    for weights in snapshot.glob("*/*.safetensors"):
        weights.rename(weights.with_suffix(".fp16.safetensors"))
    assert locate(ORIGINAL, cache_dir=tmp_path).path == snapshot


def test_a_missing_model_is_told_with_the_command_that_fetches_it(tmp_path):
    with pytest.raises(ModelNotFoundError, match=rf"python scripts/download_model\.py {ORIGINAL}$"):
        locate(ORIGINAL, cache_dir=tmp_path / "no such cache")


def test_a_half_fetched_model_is_told_with_the_files_that_are_missing(tmp_path):
    snapshot = cached(tmp_path, ORIGINAL)
    (snapshot / "vae" / "config.json").unlink()
    weights = snapshot / "unet" / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    weights.symlink_to(tmp_path / "blobs" / "never arrived")
    with pytest.raises(ModelNotFoundError, match="only partly") as caught:
        locate(ORIGINAL, cache_dir=tmp_path)
    assert "missing: vae/config.json, unet/diffusion_pytorch_model.safetensors. " in str(caught.value)
    assert f"python scripts/download_model.py {ORIGINAL}" in str(caught.value)


def test_a_folder_that_is_no_model_is_told_with_what_it_lacks(tmp_path):
    with pytest.raises(ModelLoadError, match=r"missing: model_index\.json, "):
        locate(str(tmp_path))


@pytest.mark.parametrize("suffix", ["bin", "ckpt"])
def test_pickled_weights_are_refused(tmp_path, suffix):
    folder = write_model(tmp_path)
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(f".{suffix}"))
    with pytest.raises(ModelLoadError, match=rf"diffusion_pytorch_model\.{suffix}.*only \.safetensors is read"):
        locate(str(folder))


@pytest.mark.parametrize(
    "model_id",
    [
        "",
        " ",
        "a",
        "a/b/c",
        "../../etc/passwd",
        "..--..--etc/x",
        "a/..",
        "models/../../etc",
        "models/no-such",
        "https://example.com/model",
        "file:///etc",
        "runwayml/stable-diffusion-v1-5\x00",
        "runwayml/stable-diffusion-v1-5\n",
        "runwayml/stable diffusion",
        "моя/модель",
        "C:\\models\\x",
        "a" * 300,
        "a/" * 400,
        "x" * 1_000_000,
        "/dev/null",
        "~nobody/x",
    ],
)
def test_odd_ids_are_only_not_found(tmp_path, monkeypatch, model_id):
    (tmp_path / "cache").mkdir()
    monkeypatch.chdir(tmp_path / "cache")
    with pytest.raises(ModelNotFoundError) as caught:
        locate(model_id, cache_dir=tmp_path / "cache")
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("path", [".", "..", "../..", "/"])
def test_a_path_that_leads_elsewhere_is_only_no_model(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelLoadError, match="is incomplete"):
        locate(path)


@pytest.mark.parametrize("revision", ["../../../elsewhere", "", "é", "\x00"])
def test_a_tampered_reference_leads_nowhere(tmp_path, revision):
    write_model(tmp_path / "elsewhere")
    snapshot = cached(tmp_path / "cache", ORIGINAL)
    (snapshot.parents[1] / "refs" / "main").write_text(revision)
    assert locate(ORIGINAL, cache_dir=tmp_path / "cache").path == snapshot


REFUSED = {
    "SDXL without its second text encoder": (
        "unet/config.json",
        {"addition_embed_type": "text_time"},
        "a text_encoder_2 belongs to Stable Diffusion XL, and to no other model",
    ),
    "another pipeline": ("model_index.json", {"_class_name": "FluxPipeline"}, "'FluxPipeline' is not served"),
    "a part with code": ("model_index.json", {"unet": ["my_code", "UNet2DConditionModel"]}, "no code is loaded"),
    "an unknown part": ("model_index.json", {"controlnet": ["diffusers", "X"]}, "'controlnet'"),
    "another class in the index": ("model_index.json", {"vae": ["diffusers", "Evil"]}, "not 'Evil'"),
    "a depth model": ("unet/config.json", {"in_channels": 5}, "a depth-to-image model (in_channels 5) is not served"),
    "an upscaling model": ("unet/config.json", {"in_channels": 7}, "an upscaling model (in_channels 7)"),
    "pix2pix": ("unet/config.json", {"in_channels": 8}, "an instruct-pix2pix model (in_channels 8)"),
    "odd channels": ("unet/config.json", {"in_channels": 6}, "must be 4, as the autoencoder's latents have, or 9"),
    "another UNet": ("unet/config.json", {"_class_name": "UNet3DConditionModel"}, "not 'UNet3DConditionModel'"),
    "class labels": ("unet/config.json", {"class_embed_type": "timestep"}, "class_embed_type must not be set"),
    "added embeddings": (
        "unet/config.json",
        {"addition_embed_type": "text_image"},
        "must be text, text_time or not set, not 'text_image'",
    ),
    "no size": ("unet/config.json", {"sample_size": None}, "sample_size must be"),
    "an absurd size": ("unet/config.json", {"sample_size": [8, 10**12]}, "sample_size must be"),
    "another text encoder": ("unet/config.json", {"cross_attention_dim": 1024}, "not of the same model"),
    "another autoencoder": ("vae/config.json", {"_class_name": "AutoencoderDC"}, "not 'AutoencoderDC'"),
    "other latents than the UNet's": ("vae/config.json", {"latent_channels": 16}, "out_channels must be 16"),
    "no latents": ("vae/config.json", {"latent_channels": 0}, "latent_channels must be a whole number from 1"),
    "no smaller latents": ("vae/config.json", {"block_out_channels": [8]}, "must have 2 to 6 entries"),
    "vast latents": ("vae/config.json", {"block_out_channels": [8] * 7}, "must have 2 to 6 entries"),
    "code for the text encoder": ("text_encoder/config.json", {"architectures": ["Evil"]}, "not 'Evil'"),
    "short prompts": ("text_encoder/config.json", {"max_position_embeddings": 32}, "must be 77"),
    "flow matching": ("scheduler/scheduler_config.json", {"prediction_type": "flow_prediction"}, "v_prediction"),
    "predicted pictures": ("scheduler/scheduler_config.json", {"prediction_type": "sample"}, "not 'sample'"),
    "unknown noise": ("scheduler/scheduler_config.json", {"beta_schedule": "sigmoid"}, "beta_schedule must be"),
    "noise of no size": ("scheduler/scheduler_config.json", {"beta_end": float("nan")}, "between 0 and 1"),
    "no time": ("scheduler/scheduler_config.json", {"num_train_timesteps": 0}, "num_train_timesteps must be"),
}


@pytest.mark.parametrize(("file", "values", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_model_of_another_kind_is_refused_with_file_and_reason(tmp_path, file, values, message):
    edit(write_model(tmp_path) / file, **values)
    with pytest.raises(ModelLoadError) as caught:
        locate(str(tmp_path))
    assert str(tmp_path) in str(caught.value)
    assert message in str(caught.value)


XL_REFUSED = {
    "a refiner": (
        {"projection_class_embeddings_input_dim": 24 + 5 * 8},
        "a refiner of Stable Diffusion XL is not served",
    ),
    "other numbers": (
        {"projection_class_embeddings_input_dim": 99},
        "must be projection_dim + 6 * addition_time_embed_dim",
    ),
    "no numbers": ({"addition_time_embed_dim": None}, "so whole numbers must be given for it"),
}


@pytest.mark.parametrize(("values", "message"), XL_REFUSED.values(), ids=XL_REFUSED.keys())
def test_a_relative_of_sdxl_is_refused_by_name(tmp_path, values, message):
    make_random_model(tmp_path, arch="tiny-xl")
    assert locate(str(tmp_path)).path == tmp_path
    edit(tmp_path / "unet" / "config.json", **values)
    with pytest.raises(ModelLoadError) as caught:
        locate(str(tmp_path))
    assert message in str(caught.value)


def test_weights_in_pieces_are_refused_by_name(tmp_path):
    make_random_model(tmp_path, arch="tiny-xl")
    weights = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(f"{weights}.index.json")
    with pytest.raises(ModelLoadError, match="weights in several files are not served"):
        locate(str(tmp_path))


def test_what_a_second_text_encoder_lacks_is_named(tmp_path):
    make_random_model(tmp_path, arch="tiny-xl")
    (tmp_path / "text_encoder_2" / "model.safetensors").unlink()
    (tmp_path / "tokenizer_2" / "merges.txt").unlink()
    with pytest.raises(ModelLoadError, match=r"text_encoder_2/model.safetensors, tokenizer_2/merges.txt"):
        locate(str(tmp_path))


@pytest.mark.parametrize("value", [[], {}, "x", -1, [None], [[], []], True], ids=str)
def test_a_value_of_an_odd_type_is_a_load_error_and_nothing_worse(tmp_path, value):
    configurations = {
        "model_index.json": ("_class_name", "unet", "vae", "text_encoder", "text_encoder_2", "scheduler"),
        "unet/config.json": ("_class_name", "in_channels", "sample_size", "cross_attention_dim", "num_class_embeds"),
        "vae/config.json": ("_class_name", "latent_channels", "block_out_channels"),
        "text_encoder/config.json": ("architectures", "hidden_size", "max_position_embeddings"),
        "scheduler/scheduler_config.json": ("prediction_type", "beta_schedule", "beta_start", "num_train_timesteps"),
    }
    refusals = []
    for file, names in configurations.items():
        for name in names:
            write_model(tmp_path)
            edit(tmp_path / file, **{name: value})
            try:
                locate(str(tmp_path))
            except ModelLoadError as error:
                refusals.append(str(error))
    assert len(refusals) >= 14
    assert all(str(tmp_path) in message for message in refusals)


@pytest.mark.parametrize("damage", ["", "{", "[1]", '"a"', "\xff", "[" * 100_000], ids=range(6))
@pytest.mark.parametrize("file", ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json"])
def test_a_damaged_configuration_is_named(tmp_path, file, damage):
    (write_model(tmp_path) / file).write_bytes(damage.encode("latin-1"))
    with pytest.raises(ModelLoadError, match=f"{file} is damaged"):
        locate(str(tmp_path))


def test_looking_for_a_model_imports_no_torch_and_no_http_client(tmp_path):
    """The gateway looks for models too, and must stay small and quick to start."""
    code = f"""
import sys
from engine.models.locate import locate
try:
    locate({ORIGINAL!r})
except Exception as error:
    assert type(error).__name__ == "ModelNotFoundError", error
print(sorted({{"torch", "diffusers", "transformers", "numpy", "httpx", "httpx2"}} & set(sys.modules)))
"""
    environment = {"HF_HOME": str(tmp_path), "PATH": ""}
    repository = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=repository, env=environment, check=False
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
