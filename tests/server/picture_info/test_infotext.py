"""Information texts: ours lose nothing on the way there and back, A1111's are read, hostile ones take no time."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.params import GenerationParams
from engine.picture_params import Expand, Hires, InputImage, MaskWish
from engine.samplers import SAMPLERS
from server.picture_info.fields import PICTURE_FIELDS
from server.picture_info.grammar import MAX_TEXT_BYTES
from server.picture_info.infotext import info_text, read_info
from server.schemas.generation import Defaults, GenerateRequest
from server.schemas.image_info import ImageInfo
from server.store.input_files import UploadedPicture

A1111 = json.loads((Path(__file__).parent / "a1111_texts.json").read_text())
OTHER_DEFAULTS = Defaults(
    num_inference_steps=3,
    guidance_scale=2.5,
    height=72,
    width=80,
    pixels_per_latent=8,
    sampler="LCM",
    noise_schedule="default",
    prefer_karras=True,
)
"""None of them may be needed."""
IMAGE = InputImage(sha256="0123456789abcdef" * 4, width=100, height=70)
GREY = dataclasses.replace(IMAGE, sha256="f" * 64)

pieces = st.sampled_from(
    [
        *("a cat", "\n", ",", ": ", '"', "\\", " ", "\t", "\r", "猫", "é", "\u2028", "null", "7", "{}"),
        *("Negative prompt: x", "Steps: 1, Sampler: Euler, Seed: 3", "Steps: 1, a b: 2, c d: 3\n", "prompt: x"),
    ]
)
texts = st.one_of(
    st.lists(pieces, max_size=6).map("".join),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30),
)
seeds = st.integers(0, 2**63 - 1)
sides = st.integers(8, 128).map(lambda latents: 8 * latents)


@st.composite
def samplers(draw):
    sampler = draw(st.sampled_from(list(SAMPLERS.values())))
    return sampler, draw(st.sampled_from(sampler.noise_schedules))


@st.composite
def hires_fixes(draw, width: int, height: int) -> Hires:
    own = draw(st.none() | samplers())
    steps, scale = draw(st.integers(1, 150)), draw(st.sampled_from([1, 1.5, 2]))
    return Hires(
        width=int(width * scale) // 8 * 8,
        height=int(height * scale) // 8 * 8,
        steps=steps,
        strength=draw(st.floats(0.15, 1)),
        upscaler=draw(st.sampled_from(["latent", "latent-antialiased", "latent-bicubic", "latent-nearest", "lanczos"])),
        prompt=draw(st.none() | texts.filter(bool)),
        negative_prompt=draw(st.none() | texts),
        sampler=own and own[0].name,
        noise_schedule=own and own[1],
        guidance_scale=draw(st.none() | st.floats(0, 30)),
    )


masks = st.builds(
    MaskWish,
    image=st.just(GREY),
    invert=st.booleans(),
    blur=st.integers(0, 64),
    area=st.sampled_from(["whole", "masked"]),
    padding=st.integers(0, 512),
    content=st.sampled_from(["original", "fill", "noise", "nothing"]),
)
growths = st.builds(
    Expand,
    **{side: st.sampled_from([0, 8]) for side in ("left", "top", "right")},
    bottom=st.just(16),
    blur=st.integers(0, 64),
)


@st.composite
def requests(draw) -> GenerationParams:
    """Of every kind, with every field."""
    kind = draw(st.sampled_from(["text", "image", "mask", "expand", "hires"]))
    sampler, noise_schedule = draw(samplers())
    width, height = draw(sides), draw(sides)
    steps = draw(st.integers(1, 150))
    values = {
        "prompt": draw(texts.filter(str.strip)),
        "negative_prompt": draw(texts),
        "num_inference_steps": steps,
        "guidance_scale": draw(st.floats(0, 30) | st.integers(0, 30)),
        "prompt_syntax": draw(st.sampled_from(["plain", "weighted"])),
        "emphasis": draw(st.sampled_from(["original", "no_norm", "none"])),
        "clip_skip": draw(st.integers(0, 11)),
        "guidance_rescale": draw(st.floats(0, 1)),
        "guidance_start": draw(st.floats(0, 0.5)),
        "guidance_end": draw(st.floats(0.5, 1)),
        "height": height,
        "width": width,
        "seed": draw(seeds),
        "sampler": sampler.name,
        "noise_schedule": noise_schedule,
        "eta": draw(st.none() | st.floats(0, 1)) if sampler.default_eta is not None else None,
        "size_ids": draw(st.none() | st.tuples(*[st.integers(0, 4096)] * 6)),
        "variation_seed": draw(st.none() | seeds),
    }
    if values["variation_seed"] is not None:
        values["variation_strength"] = draw(st.floats(0, 1))
    if kind == "hires":
        values["hires"] = draw(hires_fixes(width, height))
    elif kind != "text":
        values |= {
            "image": IMAGE,
            "strength": draw(st.floats(1 / steps, 1).filter(lambda strength: int(strength * steps))),
            "resize": draw(st.sampled_from(["stretch", "crop", "fill"])),
            "mask": draw(masks) if kind == "mask" else None,
            "expand": draw(growths) if kind == "expand" else None,
        }
    return GenerationParams(**values)


def drawn_again(fields) -> GenerationParams:
    """What the request with these fields, and with their pictures, asks for."""
    pictures = {
        name: UploadedPicture(**fields[name], num_bytes=1, path=Path("/nowhere"))
        for name in PICTURE_FIELDS
        if name in fields
    }
    return GenerateRequest.checked({**fields, **pictures}).to_params(OTHER_DEFAULTS)


@settings(max_examples=500, deadline=None)
@given(requests(), texts)
@example(GenerationParams(prompt="Steps: 1, Sampler: x, Seed: 2", seed=0), "")
@example(GenerationParams(prompt="a\nNegative prompt: b", seed=0), "a, b")
def test_a_request_is_the_same_after_a_text(params: GenerationParams, model_name: str):
    text = info_text(params, model_name)
    found = read_info(text)
    assert drawn_again(found.fields) == params
    assert found.unknown == {"Model": model_name}
    assert ImageInfo.of(text).unknown == found.unknown, "each field is one that a request has"


def test_every_parameter_is_tried():
    """A new parameter gets into texts by itself; that it comes back from them is to be seen above."""
    tried = {
        *("prompt", "negative_prompt", "num_inference_steps", "guidance_scale", "height", "width", "seed", "sampler"),
        *("noise_schedule", "eta", "image", "strength", "resize", "mask", "expand", "variation_seed"),
        *("variation_strength", "hires", "size_ids", "prompt_syntax", "emphasis", "clip_skip"),
        *("guidance_rescale", "guidance_start", "guidance_end"),
    }
    untold = {"num_images", "upscaler", "chosen_texts", "model"}
    """Of a text for one picture, whose choices are made; of one that nothing was drawn for; known by the catalogue."""
    assert {field.name for field in dataclasses.fields(GenerationParams)} == tried | untold


def test_an_enlarged_picture_names_what_it_was_and_is_no_request_for_a_drawing():
    params = GenerationParams(prompt="", seed=0, image=IMAGE, width=200, height=140, upscaler="lanczos")
    info = ImageInfo.of(info_text(params, "m"))
    assert (info.request, info.inputs["image"].sha256) == (None, IMAGE.sha256)
    assert info.unknown == {"Model": "m", "upscaler": "lanczos"}


def test_a_text_looks_as_people_know_it():
    params = GenerationParams(
        prompt="a cat, ink", negative_prompt="blurry", seed=7, guidance_scale=7.5, prompt_syntax="weighted", clip_skip=1
    )
    assert info_text(params, "a model") == (
        "a cat, ink\nNegative prompt: blurry\n"
        "Steps: 28, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 7, Size: 512x512,"
        " Clip skip: 2, Model: a model, Version: Semantic Bit"
    )


@pytest.mark.parametrize("case", A1111, ids=[case["name"] for case in A1111])
def test_a_text_of_a1111_is_read(case):
    info = ImageInfo.of(case["text"])
    assert (info.request, info.unknown, info.inputs) == (case["request"], case["unknown"], {})


def test_there_are_thirty_texts_of_a1111():
    assert len({case["text"] for case in A1111}) >= 30


@pytest.mark.parametrize(
    "hostile",
    [
        "a" * MAX_TEXT_BYTES,
        "a " * (MAX_TEXT_BYTES // 2),
        'aa:"' * (MAX_TEXT_BYTES // 4),
        'aa:"\\' * (MAX_TEXT_BYTES // 5),
        "aa: " + "[" * (MAX_TEXT_BYTES // 2),
        "Steps: 1, Seed: 2, ab: 3, prompt: " + json.dumps("[" * 30_000),
        "Steps: 1, Seed: 2, ab: 3, seed: " + "9" * 30_000,
        'Steps: 1, Seed: 2, ab: 3, guidance_scale: 1e999, eta: NaN, hires: "{\\"scale\\": Infinity}", user: x',
        'Steps: 1, Seed: 2, ab: "\\ud800", prompt: "\\"\\\\ud800\\"", image: 3, mask: x',
        "\n" * MAX_TEXT_BYTES,
        ", " * (MAX_TEXT_BYTES // 2),
    ],
    ids=range(11),
)
def test_a_hostile_text_is_read_in_no_time_and_answered(hostile: str):
    """Each has 64 KiB at most; a reader in quadratic time takes minutes."""
    began = time.process_time()
    answer = ImageInfo.of(hostile).model_dump_json()
    assert time.process_time() - began < 10
    json.loads(answer, parse_constant=pytest.fail)
    assert "user" not in json.loads(answer)["request"]


def test_a_text_that_would_be_too_long_is_left_out():
    long = "猫" * 8000
    assert info_text(GenerationParams(prompt=long, negative_prompt=long, seed=0), "m") is not None
    hires = Hires(width=512, height=512, steps=1, strength=1, prompt=long)
    assert info_text(GenerationParams(prompt=long, negative_prompt=long, seed=0, hires=hires), "m") is None
