"""Textual inversions: against diffusers, in company, and files that are damaged or mean harm."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import save_file

from engine.engine import Engine
from engine.errors import InvalidParamsError
from engine.models.locate import locate
from engine.models.random_model import make_random_model
from engine.models.stable_diffusion import StableDiffusion
from engine.models.textual_inversions import MAX_FILE_BYTES, read_textual_inversions
from engine.prompts.prompt import Prompt
from tests.engine.drawing import Params
from tests.engine.prompts.test_words_in_pictures import assert_company_changes_nothing

WIDTH = 32
ONE, THREE = "glow", "glow-style"
"""Names, one of which begins with the other; of one vector and of three."""


def vectors(count: int, seed: int, width: int = WIDTH) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embeddings")
    save_file({"emb_params": vectors(1, 1)[0]}, folder / f"{ONE}.safetensors")
    (folder / "styles").mkdir()
    converted = {"string_to_param.*": vectors(3, 2), "string_to_token.*": torch.tensor([265])}
    save_file(converted, folder / "styles" / f"{THREE}.safetensors")
    save_file({"<half>": vectors(2, 3).half()}, folder / "half.safetensors")
    save_file({"emb_params": vectors(40, 4)}, folder / "long.safetensors")
    return folder


def loaded(model: Path, embeddings: Path) -> StableDiffusion:
    inversions = read_textual_inversions(embeddings)
    return StableDiffusion.load(locate(str(model)), torch.device("cpu"), torch.float32, inversions=inversions)


@pytest.fixture(scope="module")
def model(tiny_model_folder: Path, folder: Path) -> StableDiffusion:
    return loaded(tiny_model_folder, folder)


@pytest.fixture(scope="module")
def pipeline(tiny_model_folder: Path, folder: Path) -> Any:
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(str(tiny_model_folder), safety_checker=None)
    for name, tensor in ((ONE, vectors(1, 1)), (THREE, vectors(3, 2)), ("half", vectors(2, 3).half().float())):
        pipeline.load_textual_inversion({name: tensor}, token=name)
    return pipeline


def embeds(model: StableDiffusion, text: str, num_chunks: int = 1, **wishes: Any) -> torch.Tensor:
    (reader,) = model._texts
    with torch.inference_mode():
        return reader.read(Prompt(text, is_weighted=True, **wishes), num_chunks).embeds


@pytest.mark.parametrize(
    "text", [ONE, f"a {ONE} cat", f"a cat, {THREE}", f"{THREE} {ONE} and half, {ONE}", f"{ONE} " * 20 + "a cat"]
)
def test_a_name_becomes_its_vectors_as_in_diffusers(model: StableDiffusion, pipeline: Any, text: str):
    with torch.inference_mode():
        expected = pipeline.encode_prompt(text, "cpu", 1, do_classifier_free_guidance=False)[0]
    ours = embeds(model, text)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)
    assert not torch.allclose(ours, embeds(model, text.replace("glow", "glaw").replace("half", "hilf")), atol=1e-3)


def test_both_encoders_of_xl_get_their_own_vectors(tmp_path: Path):
    make_random_model(tmp_path / "xl", arch="tiny-xl", seed=5)
    embeddings = tmp_path / "embeddings"
    embeddings.mkdir()
    pipeline: Any = diffusers.StableDiffusionXLPipeline.from_pretrained(str(tmp_path / "xl"))
    widths = pipeline.text_encoder.config.hidden_size, pipeline.text_encoder_2.config.hidden_size
    both = vectors(2, 6, widths[0]), vectors(2, 7, widths[1])
    save_file({"clip_g": both[1], "clip_l": both[0]}, embeddings / "glow.safetensors")
    ours = loaded(tmp_path / "xl", embeddings)
    for tensor, encoder, tokenizer in (
        (both[0], pipeline.text_encoder, pipeline.tokenizer),
        (both[1], pipeline.text_encoder_2, pipeline.tokenizer_2),
    ):
        pipeline.load_textual_inversion({"glow": tensor}, token="glow", text_encoder=encoder, tokenizer=tokenizer)
    with torch.inference_mode():
        expected, _, pooled, _ = pipeline.encode_prompt("a glow cat", device="cpu", do_classifier_free_guidance=False)
        read = [reader.read(Prompt("a glow cat", is_weighted=True), 1) for reader in ours._texts]
    torch.testing.assert_close(torch.cat([text.embeds for text in read], dim=-1), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(read[-1].pooled, pooled, rtol=0, atol=1e-6)


def test_vectors_weigh_what_stands_around_the_name_and_may_be_read_with_layers_skipped(model: StableDiffusion):
    plain = embeds(model, f"a {THREE} cat", emphasis="no_norm")
    heavy = embeds(model, f"a ({THREE}:1.5) cat", emphasis="no_norm")
    ratio = heavy / plain
    weights = [1.0, 1.0, 1.5, 1.5, 1.5, *[1.0] * 72]
    torch.testing.assert_close(ratio, torch.tensor(weights)[None, :, None].expand_as(ratio), rtol=1e-4, atol=0)
    assert torch.equal(embeds(model, f"a {THREE} cat", emphasis="none"), plain)
    assert not torch.allclose(embeds(model, f"a {THREE} cat", clip_skip=1), plain, atol=1e-3)


def test_a_name_is_never_divided_counts_as_its_vectors_and_is_read_whatever_its_capitals(model: StableDiffusion):
    def count(text: str) -> int:
        return model.count_chunks(Prompt(text, is_weighted=True))

    assert [count("long"), count("long long"), count("a " * 35 + "long"), count("a " * 36 + "long")] == [1, 2, 1, 2]
    assert torch.equal(embeds(model, "a GLOW-Style cat"), embeds(model, "a glow-style cat"))
    split = embeds(model, "a " * 36 + "long", 2)
    assert torch.equal(split[:, 77:], embeds(model, "long"))


def test_a_plain_prompt_names_nothing(tiny_model: StableDiffusion, model: StableDiffusion):
    prompt = Prompt(f"a {ONE} cat")
    assert torch.equal(model.encode_prompt(prompt).attended, tiny_model.encode_prompt(prompt).attended)


def test_pictures_with_textual_inversions_are_drawn_as_if_alone(model: StableDiffusion, params: Params):
    wishes: list[dict[str, Any]] = [
        {"prompt": f"a {ONE} ball"},
        {"prompt": f"a ({THREE}:1.3) ball", "negative_prompt": "half"},
        {"prompt": "a ball", "negative_prompt": "long long"},
        {"prompt": f"a gliw ball AND {THREE}", "num_inference_steps": 3},
        {"prompt": f"[{ONE}:{THREE}:0.5] ball", "clip_skip": 1},
        {"prompt": "a ball"},
    ]
    asked = [params(prompt_syntax="weighted", seed=60 + i, **wish) for i, wish in enumerate(wishes)]
    assert_company_changes_nothing(model, asked, 4)


def test_the_text_encoder_is_in_memory_once(model: StableDiffusion):
    (reader,) = model._texts
    embeds(model, ONE)
    assert reader._loaded is not None
    assert reader._load() is reader._loaded


def safetensors_file(header: dict[str, Any] | bytes, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape: list[Any], end: int, dtype: str = "F32", begin: int = 0) -> dict[str, Any]:
    return {"emb_params": {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}}


HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not a safetensors file"),
    "pickle": (pickle.dumps({"string_to_param": {"*": [0.0] * 32}}), "not a safetensors file"),
    "huge header": (struct.pack("<Q", 2**60) + b"{}", "not a safetensors file"),
    "no json": (safetensors_file(b"{" * 10_000), "not a safetensors file"),
    "a list": (safetensors_file(b"[]"), "not a safetensors file"),
    "nothing in it": (safetensors_file({}), "one tensor"),
    "too large": (b"\0" * (MAX_FILE_BYTES + 1), "more than"),
    "no vectors": (safetensors_file(entry([0, WIDTH], 0)), "must hold vectors"),
    "cubes": (safetensors_file(entry([1, 1, WIDTH], 128), b"\0" * 128), "must hold vectors"),
    "negative": (safetensors_file(entry([-1, -WIDTH], 128), b"\0" * 128), "must hold vectors"),
    "no numbers": (safetensors_file(entry(["1", WIDTH], 128), b"\0" * 128), "must hold vectors"),
    "whole numbers": (safetensors_file(entry([1, WIDTH], 128, "I32"), b"\0" * 128), "F32, F16, BF16"),
    "too many": (safetensors_file(entry([76, WIDTH], 76 * 128), b"\0" * 76 * 128), "at most 75 vectors"),
    "cut off": (safetensors_file(entry([1, WIDTH], 128), b"\0" * 100), "length does not suit"),
    "outside": (safetensors_file(entry([1, WIDTH], 128, begin=-128), b"\0" * 128), "length does not suit"),
    "not finite": (safetensors_file(entry([1, WIDTH], 128), struct.pack("<32f", *[float("nan")] * 32)), "not finite"),
    "gap": (safetensors_file(entry([1, WIDTH], 256, begin=128), b"\0" * 256), "damaged, or not readable"),
    "too wide": (safetensors_file(entry([1, 48], 192), b"\0" * 192), "48 numbers, those of this model's"),
}


@pytest.fixture(scope="module")
def beside_hostile_files(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("hostile")
    for name, (data, _) in HOSTILE.items():
        (folder / f"{name}.safetensors").write_bytes(data)
    save_file({"clip_l": vectors(1, 1), "clip_g": vectors(2, 1)}, folder / "uneven.safetensors")
    save_file({"clip_l": vectors(1, 1), "clip_g": vectors(1, 1)}, folder / "for xl.safetensors")
    save_file({"a": vectors(1, 1), "b": vectors(1, 1)}, folder / "two tensors.safetensors")
    (folder / "pickled.pt").write_bytes(pickle.dumps({}))
    (folder / "twin").mkdir()
    for place in (folder / "double.safetensors", folder / "twin" / "Double.safetensors"):
        save_file({"emb_params": vectors(1, 1)}, place)
    save_file({"emb_params": vectors(1, 1)}, folder / "good.safetensors")
    return Engine(loaded(tiny_model_folder, folder))


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        *((name, rule) for name, (_, rule) in HOSTILE.items()),
        ("uneven", "equally many"),
        ("for xl", r"32 \+ 32 numbers"),
        ("two tensors", "one tensor"),
        ("double", "several files"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_name_where_a_prompt_names_it(
    beside_hostile_files: Engine, params: Params, name: str, rule: str
):
    for field in ("prompt", "negative_prompt"):
        asked = params(**{"prompt": "a good cat", field: f"a {name}, good", "prompt_syntax": "weighted"})
        with pytest.raises(
            InvalidParamsError, match=f"(?i)must not name the textual inversion {name}: .*{rule}"
        ) as got:
            beside_hostile_files.prepare("0", asked)
        assert got.value.field == field
    assert beside_hostile_files.prepare("0", params(prompt="a good pickled cat", prompt_syntax="weighted")).pictures


def test_other_files_and_missing_folders_are_nothing(tmp_path: Path):
    for name in ("a.pt", "b.bin", "c.png", "d.safetensors.txt"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "e.safetensors").mkdir()
    assert read_textual_inversions(tmp_path) == ()
    assert read_textual_inversions(tmp_path / "missing") == ()
    assert read_textual_inversions(None) == ()
