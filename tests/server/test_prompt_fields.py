"""The prompt language over HTTP: what a request that does not say means, and choices made at acceptance."""

from __future__ import annotations

from pathlib import Path

import httpx2
import msgspec
import pytest

from engine.errors import InvalidParamsError
from engine.params import GenerationParams
from engine.prompts.dynamic import no_wildcards
from engine.prompts.wildcards import MAX_FILE_BYTES, WildcardFolder
from server.schemas.generation import Defaults, GenerateRequest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "animals").mkdir()
    (tmp_path / "animals" / "birds.txt").write_text("# not an owl\nowl\n\n  crow  \n", encoding="utf-8")
    (tmp_path / "colours.txt").write_text("\ufeffred\nblue\n__animals/birds__\n", encoding="utf-8")
    (tmp_path / "broken.txt").write_bytes(b"\xff\xfe\xfd")
    (tmp_path / "large.txt").write_bytes(b"x" * (MAX_FILE_BYTES + 1))
    (tmp_path.parent / "secret.txt").write_text("secret", encoding="utf-8")
    return tmp_path


def params_of(body: dict[str, object], wildcards: object = no_wildcards) -> GenerationParams:
    defaults = Defaults(
        num_inference_steps=20,
        guidance_scale=7.0,
        height=512,
        width=512,
        pixels_per_latent=8,
        sampler="Euler",
        noise_schedule="default",
        prefer_karras=False,
        wildcards=wildcards,
    )
    return GenerateRequest.checked({"seed": 3, **body}).to_params(defaults)


def test_a_request_that_does_not_say_is_read_in_a1111s_language():
    assert params_of({"prompt": "(a:1.2)"}).prompt_syntax == "weighted"
    wish = {
        "prompt_syntax": "plain",
        "emphasis": "no_norm",
        "clip_skip": 2,
        "guidance_rescale": 0.5,
        "guidance_start": 0.1,
        "guidance_end": 0.9,
    }
    params = params_of({"prompt": "(a:1.2)", **wish})
    assert {name: getattr(params, name) for name in wish} == wish


def test_each_picture_gets_its_own_choice_and_the_job_keeps_it(folder: Path):
    wildcards = WildcardFolder(folder)
    body = {"prompt": "a {big|small} __colours__ ball", "negative_prompt": "{fog|rain}", "prompt_syntax": "dynamic"}
    params = params_of({**body, "num_images": 8}, wildcards)
    assert params.chosen_texts is not None
    assert len({texts.prompt for texts in params.chosen_texts}) > 2
    assert {texts.negative_prompt for texts in params.chosen_texts} == {"fog", "rain"}
    for index, texts in enumerate(params.chosen_texts):
        assert params_of({**body, "seed": 3 + index}, wildcards).chosen_texts == (texts,)
        assert params.of_image(index).prompt == texts.prompt
    stored = msgspec.json.encode(params)
    (folder / "colours.txt").write_text("green", encoding="utf-8")
    assert msgspec.json.decode(stored, type=GenerationParams) == params
    assert "green" in params_of(body, wildcards).of_image(0).prompt


def test_what_a_second_leg_has_of_its_own_is_chosen_too():
    hires = {"scale": 2, "prompt": "{a|b}", "negative_prompt": "{c|d}"}
    params = params_of({"prompt": "{e|f}", "prompt_syntax": "dynamic", "hires": hires})
    first, second = params.of_image(0).legs
    assert (first.prompt in {"e", "f"}, second.prompt in {"a", "b"}, second.negative_prompt in {"c", "d"}) == (
        True,
    ) * 3


@pytest.mark.parametrize(
    ("field", "text", "rule"),
    [
        ("prompt", "__nothing__", "does not have: nothing"),
        ("negative_prompt", "__nothing__", "does not have: nothing"),
        ("prompt", "__../secret__ __secret__", "does not have: secret"),
        ("prompt", "__/etc/passwd__", "does not have: /etc/passwd"),
        ("prompt", "__animals//birds__", "does not have"),
        ("prompt", "__broken__", "cannot be read as UTF-8: broken"),
        ("prompt", "__large__", "larger than"),
        ("prompt", "{(a:200)|(a:300)}", "weigh no word"),
    ],
)
def test_a_prompt_that_cannot_be_chosen_for_is_refused(folder: Path, field: str, text: str, rule: str):
    with pytest.raises(InvalidParamsError, match=rule) as refused:
        params_of({"prompt": "a", field: text, "prompt_syntax": "dynamic"}, WildcardFolder(folder))
    assert refused.value.field == field


def test_jobs_list_what_was_chosen_and_refuse_what_cannot_be_read(serve):
    running = serve()
    with httpx2.Client(base_url=running.url) as client:
        quick = {"num_inference_steps": 2, "height": 64, "width": 64, "seed": 1}
        body = {**quick, "prompt": "a {red|blue} (ball:1.2) AND a box", "prompt_syntax": "dynamic", "num_images": 2}
        job = client.post("/v1/jobs", json=body).json()
        told = client.get(job["links"]["self"]).json()["params"]
        assert (told["prompt"], told["prompt_syntax"]) == (body["prompt"], "dynamic")
        assert {texts["prompt"] for texts in told["chosen_texts"]} <= {
            f"a {colour} (ball:1.2) AND a box" for colour in ("red", "blue")
        }
        refused = client.post("/generate", json={**quick, "prompt": "(a:101)"})
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "prompt")
