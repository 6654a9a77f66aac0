"""What text encoders make of the prompt language, against transformers and a naive encoder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTokenizer

from engine.errors import InvalidParamsError
from engine.models.locate import locate
from engine.models.stable_diffusion import StableDiffusion
from engine.prompts.prompt import Prompt


@pytest.fixture(scope="module")
def folder(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with embeddings whose mean is not 0, as those of trained networks."""
    folder = shutil.copytree(tiny_model_folder, tmp_path_factory.mktemp("reading") / "model")
    weights = load_file(folder / "text_encoder" / "model.safetensors")
    (name,) = (name for name in weights if name.endswith("final_layer_norm.bias"))
    save_file(weights | {name: weights[name] + 0.3}, folder / "text_encoder" / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> StableDiffusion:
    return StableDiffusion.load(locate(str(folder)), torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def oracle(folder: Path) -> tuple[CLIPTokenizer, CLIPTextModel]:
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    return tokenizer, CLIPTextModel.from_pretrained(folder / "text_encoder").eval()


def embeds(model: StableDiffusion, prompt: Prompt, num_chunks: int = 1) -> torch.Tensor:
    (reader,) = model._texts
    with torch.inference_mode():
        return reader.read(prompt, num_chunks).embeds


@pytest.mark.parametrize("text", ["", "a cat", "a red ball, a blue ball", "a cat " * 37])
def test_a_text_without_weights_is_read_as_diffusers_reads_it_to_the_last_bit(
    model: StableDiffusion, oracle: tuple[CLIPTokenizer, CLIPTextModel], text: str
):
    tokenizer, encoder = oracle
    ids = tokenizer(text, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    with torch.inference_mode():
        expected = encoder(ids)[0]
    for is_weighted in (False, True):
        assert torch.equal(embeds(model, Prompt(text, is_weighted=is_weighted)), expected)
        whole = model.encode_prompt(Prompt(text, is_weighted=is_weighted))
        assert torch.equal(whole.attended, model._unet["pack_prompt"](expected)[0])


def naive(
    oracle: tuple[CLIPTokenizer, CLIPTextModel], chunks: list[list[tuple[str, float]]], *, keeps_mean: bool = True
) -> torch.Tensor:
    """Weights of words, in twenty lines: start, tokens, end, padded with ends."""
    tokenizer, encoder = oracle
    read = []
    for pieces in chunks:
        ids, weights = [tokenizer.bos_token_id], [1.0]
        for text, weight in pieces:
            tokens = tokenizer(text, add_special_tokens=False).input_ids
            ids += tokens
            weights += [weight] * len(tokens)
        missing = 77 - len(ids)
        ids, weights = ids + [tokenizer.eos_token_id] * missing, weights + [1.0] * missing
        hidden = encoder(torch.tensor([ids]))[0]
        weighted = hidden * torch.tensor(weights)[None, :, None]
        if keeps_mean and set(weights) != {1.0}:
            weighted = weighted * (hidden.mean() / weighted.mean())
        read.append(weighted)
    return torch.cat(read, dim=1)


@pytest.mark.parametrize("emphasis", ["original", "no_norm"])
@pytest.mark.parametrize(
    ("text", "chunks"),
    [
        ("a (cat:1.3) and [a dog]", [[("a", 1.0), ("cat", 1.3), ("and", 1.0), ("a dog", 1 / 1.1)]]),
        ("a (cat:1.3) BREAK a (dog:0.7)", [[("a", 1.0), ("cat", 1.3)], [("a", 1.0), ("dog", 0.7)]]),
        ("a cat BREAK", [[("a cat", 1.0)]]),
        ("a " * 80 + "(b:1.2)", [[("a " * 75, 1.0)], [("a " * 5, 1.0), ("b", 1.2)]]),
        ("a " * 70 + ", " + "b " * 8, [[("a " * 70 + ",", 1.0)], [("b " * 8, 1.0)]]),
    ],
)
def test_weights_and_chunks_are_those_of_a_naive_encoder(
    model: StableDiffusion, oracle: tuple[CLIPTokenizer, CLIPTextModel], text: str, chunks: list, emphasis: str
):
    prompt = Prompt(text, is_weighted=True, emphasis=emphasis)
    assert model.count_chunks(prompt) == len(chunks)
    with torch.inference_mode():
        expected = naive(oracle, chunks, keeps_mean=emphasis == "original")
    torch.testing.assert_close(embeds(model, prompt, len(chunks)), expected, rtol=1e-5, atol=1e-6)


def test_brackets_are_text_without_emphasis(model: StableDiffusion, oracle: tuple[CLIPTokenizer, CLIPTextModel]):
    with torch.inference_mode():
        expected = naive(oracle, [[("a (cat:1.3)", 1.0)]])
    assert torch.equal(embeds(model, Prompt("a (cat:1.3)", is_weighted=True, emphasis="none")), expected)


def test_a_shorter_text_is_followed_by_empty_ones(model: StableDiffusion, oracle: tuple[CLIPTokenizer, CLIPTextModel]):
    with torch.inference_mode():
        expected = naive(oracle, [[("a cat", 1.0)], [], []])
    assert torch.equal(embeds(model, Prompt("a cat", is_weighted=True), 3), expected)
    assert model.encode_prompt(Prompt("a cat", is_weighted=True), 3).attended.shape[0] == 3 * 77


@pytest.mark.parametrize("num_skipped", [1, 2])
def test_skipped_layers_are_left_out_before_the_final_norm(
    model: StableDiffusion, oracle: tuple[CLIPTokenizer, CLIPTextModel], num_skipped: int
):
    """A forward pass by hand: diffusers' own `clip_skip` fails with this version of transformers."""
    tokenizer, encoder = oracle
    if num_skipped >= encoder.config.num_hidden_layers:
        with pytest.raises(InvalidParamsError, match="clip_skip"):
            model.count_chunks(Prompt("a cat", is_weighted=True, clip_skip=num_skipped))
        return
    ids = tokenizer("a cat", padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.inference_mode():
        hidden = encoder(ids, output_hidden_states=True).hidden_states[-1 - num_skipped]
        expected = encoder.final_layer_norm(hidden)
    for is_weighted in (False, True):
        read = embeds(model, Prompt("a cat", is_weighted=is_weighted, clip_skip=num_skipped))
        torch.testing.assert_close(read, expected, rtol=1e-6, atol=1e-6)
    assert not torch.equal(read, embeds(model, Prompt("a cat")))


def test_a_mean_of_nothing_but_rounding_is_not_kept(tiny_model: StableDiffusion):
    """The embeddings of networks that were never trained have a mean of 0; keeping it would multiply by anything."""
    text = "a (red:1.3) ball"
    kept, plain = (
        embeds(tiny_model, Prompt(text, is_weighted=True, emphasis=kind)) for kind in ("original", "no_norm")
    )
    assert torch.equal(kept, plain)
