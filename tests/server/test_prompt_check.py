"""A prompt that its model cannot read is refused when it comes, as the engine would refuse it later."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from structlog.testing import capture_logs

from engine.errors import InvalidParamsError
from engine.models.fake_words import fake_chunks
from engine.models.layout import read_configs
from engine.models.locate import ModelFolder, locate
from engine.models.prompt_cutter import load_cutters, most_chunks
from engine.models.random_model import make_random_model
from engine.models.textual_inversions import TextualInversion
from engine.params import GenerationParams
from engine.picture_params import Hires
from engine.prompt_limits import are_surely_short
from engine.prompts.prompt import ChosenTexts
from server.prompt_check import PromptCheck

DREAMLET = locate("models/dreamlet")
EARLY_ENDS = ("\U0001d518" * 14 + ",") * 9
"""As many tokens as bytes, and every chunk ends after 57 of them, with its comma."""


def wish(**changes: object) -> GenerationParams:
    return GenerationParams(**{"prompt": "a cat", "seed": 1, "prompt_syntax": "weighted"} | changes)


def refusal(check: PromptCheck, params: GenerationParams) -> tuple[str, str] | None:
    """The field and the rule that it breaks."""
    try:
        asyncio.run(check.check(params))
    except InvalidParamsError as error:
        return error.field, error.rule
    return None


@pytest.fixture
def check() -> PromptCheck:
    return PromptCheck([("", locate("fake")), ("dreamlet", DREAMLET), ("engine", locate("fake-engine"))])


TOO_LONG = "must have at most 600 tokens, counted in parts of 75"


@pytest.mark.parametrize("model", ["", "dreamlet"])
@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"prompt": "x " * 600}, None),
        ({"prompt": "x " * 601}, ("prompt", TOO_LONG)),
        ({"negative_prompt": "x " * 601}, ("negative_prompt", TOO_LONG)),
        ({"negative_prompt": "x " * 601, "guidance_scale": 1.0}, None),
        ({"prompt": "x BREAK " * 9}, ("prompt", TOO_LONG)),
        ({"prompt": "x " * 601, "prompt_syntax": "plain"}, None),
        (
            {"hires": Hires(width=1024, height=1024, steps=5, strength=0.5, prompt="x " * 601)},
            ("hires.prompt", TOO_LONG),
        ),
        (
            {"prompt": "[a|b|c|d|e|f|g|h|i]" + "x " * 520, "num_inference_steps": 20},
            ("prompt", "must have at most 64 parts of 75 tokens in all texts that it becomes"),
        ),
    ],
)
def test_what_the_model_cannot_read_is_refused_by_field_and_rule(
    check: PromptCheck, model: str, changes: dict[str, object], refused: tuple[str, str] | None
):
    assert refusal(check, wish(model=model, **changes)) == refused


def test_every_picture_s_choice_counts(check: PromptCheck):
    texts = (ChosenTexts(prompt="x"), ChosenTexts(prompt="x " * 601))
    params = wish(prompt="{a|b}", prompt_syntax="dynamic", chosen_texts=texts, num_images=2)
    assert refusal(check, params) == ("prompt", TOO_LONG)


def test_layers_and_guidance_are_those_of_the_model(tmp_path: Path):
    make_random_model(tmp_path / "lcm", embeds_guidance=True)
    folder = locate(str(tmp_path / "lcm"))
    layers = json.loads((tmp_path / "lcm" / "text_encoder" / "config.json").read_text())["num_hidden_layers"]
    check = PromptCheck([("", folder)])
    assert refusal(check, wish(clip_skip=layers - 1)) is None
    assert refusal(check, wish(clip_skip=layers)) == ("clip_skip", f"must be less than {layers}")
    assert refusal(check, wish(clip_skip=layers, prompt_syntax="plain")) == ("clip_skip", f"must be less than {layers}")
    joined = refusal(check, wish(prompt="a cat AND a dog", guidance_scale=1.0))
    assert joined == ("prompt", "must not join prompts by AND with a model that guides by itself")
    # It guides by itself: a negative prompt is not read.
    assert refusal(check, wish(negative_prompt="x " * 601, guidance_scale=7.0)) is None


def test_textual_inversions_count_for_their_vectors_or_are_refused_by_name():
    path = DREAMLET.path
    assert path is not None
    widths = tuple(map(read_configs(path).text_width, read_configs(path).text_encoders))
    style = TextualInversion(name="style", path=path, widths=widths, num_vectors=75)
    other = TextualInversion(name="other", path=path, widths=(1,), num_vectors=1)
    check = PromptCheck([("", DREAMLET)], (style, other))
    assert refusal(check, wish(prompt="a cat, " + "style " * 7)) is None
    assert refusal(check, wish(prompt="a cat, " + "style " * 8)) == ("prompt", TOO_LONG)
    field, rule = refusal(check, wish(negative_prompt="an other")) or ("", "")
    assert (field, rule.partition(":")[0]) == ("negative_prompt", "must not name the textual inversion other")


def test_a_model_that_the_gateway_cannot_read_is_left_to_the_engine(tmp_path: Path, check: PromptCheck):
    assert refusal(check, wish(model="engine", prompt="x " * 601)) is None
    assert refusal(check, wish(model="unknown", prompt="x " * 601)) is None
    make_random_model(tmp_path / "torn")
    folder = locate(str(tmp_path / "torn"))
    torn = PromptCheck([("", folder)])
    shutil.rmtree(tmp_path / "torn" / "tokenizer")
    with capture_logs() as lines:
        assert refusal(torn, wish(prompt="x " * 601)) is None
        assert refusal(torn, wish(prompt="x " * 601)) is None
    assert [line["event"] for line in lines] == ["prompts cannot be counted before the engine reads them"]


def test_what_passes_without_a_tokenizer_is_short_for_every_tokenizer(monkeypatch: pytest.MonkeyPatch):
    """The bound holds for texts that are as many tokens as characters, that grow, or whose chunks end early."""
    cutters = load_cutters(DREAMLET.path or Path())
    rng = random.Random(0)
    alphabet = ["x", "x ", "!", ",", "\u0130", "\u0958", "\ufb2c", "\U0001d160", "日", " BREAK ", "(", "cat "]
    texts = ["".join(rng.choices(rng.sample(alphabet, 3), k=rng.randrange(1, 500))) for _ in range(300)]
    num_passed = 0
    for text in [*texts, EARLY_ENDS, EARLY_ENDS[:90], "x " * 230, "BREAK" * 7]:
        try:
            (leg,) = wish(prompt=text or "x", guidance_scale=1.0).legs
        except InvalidParamsError:
            continue  # brackets without an end
        if are_surely_short(leg):
            num_passed += 1
            for prompt in leg.prompts.prompts:
                assert most_chunks(cutters, prompt) <= 8
                assert len(fake_chunks(prompt)) <= 8
    assert num_passed > 50
    monkeypatch.setattr("server.prompt_check._counter", None)  # an ordinary prompt needs no tokenizer
    ordinary = "a cat sitting on a mat, digital art style, detailed, (masterpiece:1.2), küchen, 猫 " * 3
    assert refusal(PromptCheck([("", DREAMLET)]), wish(prompt=ordinary)) is None


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", {}),
        ("/v1/jobs", {}),
        ("/v1/images/generations", {}),
        ("/sdapi/v1/txt2img", {}),
    ],
)
def test_a_request_that_is_too_long_is_refused_at_the_post_and_no_job_is_made(
    serve: Callable, path: str, body: dict[str, object]
):
    running = serve(compat_apis=["openai", "a1111"])
    with httpx2.Client(base_url=running.url, timeout=60) as client:
        answer = client.post(path, json={"prompt": "x " * 601} | body)
        assert answer.status_code in {400, 422}
        assert "600 tokens" in answer.text
        assert client.get("/v1/jobs").json()["jobs"] == []
        if path == "/v1/jobs":
            (error,) = answer.json()["errors"]
            assert (error["field"], error["rule"]) == ("prompt", TOO_LONG)


def test_a_repeat_of_an_accepted_job_is_found_before_it_is_checked(serve: Callable, monkeypatch: pytest.MonkeyPatch):
    """The rules may have changed since, with the model."""
    running = serve()
    with httpx2.Client(base_url=running.url, timeout=60) as client:
        headers = {"Idempotency-Key": "one"}
        first = client.post("/v1/jobs", json={"prompt": "a cat", "seed": 1}, headers=headers)

        async def refuse(params: GenerationParams) -> None:
            raise InvalidParamsError("prompt", "must be shorter", params.prompt)

        monkeypatch.setattr(running.app.state.service.generator.admission, "_check", refuse)
        again = client.post("/v1/jobs", json={"prompt": "a cat", "seed": 1}, headers=headers)
        assert again.json()["id"] == first.json()["id"]
        assert client.post("/v1/jobs", json={"prompt": "a cat"}).status_code == 422


def test_a_folder_without_a_path_needs_no_files():
    nothing = ModelFolder("fake", None, 512, 512, 8)
    assert refusal(PromptCheck([("", nothing)]), wish(clip_skip=11)) is None
