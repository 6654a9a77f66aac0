"""The prompt language in pictures: which rows are told what and when, and that nobody's company changes a byte."""

from __future__ import annotations

import pytest
import torch

from engine.engine import Engine
from engine.errors import InvalidParamsError
from engine.events import EngineEvent, WorkItem
from engine.models.fake import FakeModel
from engine.models.stable_diffusion import StableDiffusion
from engine.params import GenerationParams
from engine.prompts.prompt import ChosenTexts, Prompt
from tests.engine.drawing import Params, add_all, images, run

LONG = "a red ball on a table, " * 20

WISHES = [
    {"prompt": "a red ball"},
    {"prompt": LONG, "negative_prompt": "fog"},
    {"prompt": "a (red:1.4) ball", "guidance_scale": 1.0},
    {"prompt": "a red ball AND a blue box:0.6", "num_inference_steps": 3},
    {"prompt": "[a red ball:a blue box:0.5] AND [snow|rain]", "guidance_rescale": 0.7, "num_inference_steps": 5},
    {"prompt": "[a red ball:a blue box:2]", "negative_prompt": "[fog:]"},
    {"prompt": "a ball", "guidance_start": 0.3, "guidance_end": 0.8, "num_inference_steps": 6},
    {"prompt": "a ball", "negative_prompt": LONG, "guidance_rescale": 1.0},
    {"prompt": "a ball BREAK a box", "emphasis": "no_norm", "sampler": "Heun", "noise_schedule": "karras"},
    {"prompt": LONG + "AND a box", "height": 128},
    {"prompt": "a (red:1.4) ball", "prompt_syntax": "plain"},
    {"prompt": "a ball", "clip_skip": 1},
]


def wishes(params: Params) -> list[GenerationParams]:
    return [params(**({"prompt_syntax": "weighted", "seed": 50 + i} | wish)) for i, wish in enumerate(WISHES)]


@pytest.mark.parametrize(
    ("model_name", "rows_per_call"), [("tiny_model", 2), ("tiny_model", 6), ("tiny_openvino", 4), ("dreamlet", 4)]
)
def test_long_short_joined_and_edited_prompts_are_drawn_as_if_alone(
    request: pytest.FixtureRequest, params: Params, model_name: str, rows_per_call: int
):
    assert_company_changes_nothing(request.getfixturevalue(model_name), wishes(params), rows_per_call)


def assert_company_changes_nothing(model: StableDiffusion, asked: list[GenerationParams], rows_per_call: int) -> None:
    """Alone, all at once in reverse order, and joining midway."""

    def engine() -> Engine:
        return Engine(model, rows_per_call=rows_per_call, max_images_in_flight=6)

    alone: dict[str, bytes] = {}
    for index, wish in enumerate(asked):
        lonely = engine()
        add_all(lonely, [wish], first_id=index)
        alone |= drawn(run(lonely))
    reverse = engine()
    for index in reversed(range(len(asked))):
        reverse.add(reverse.prepare(str(index), asked[index]))
    assert drawn(run(reverse)) == alone
    joined = engine()
    events: list[EngineEvent] = []
    for index, wish in enumerate(asked):
        joined.add(joined.prepare(str(index), wish))
        events += joined.step() + joined.step()
    assert drawn(events + run(joined)) == alone
    assert len(set(alone.values())) == len(asked)


def drawn(events: list[EngineEvent]) -> dict[str, bytes]:
    return {name: pixels for (name, _), pixels in images(events).items()}


def by_hand(model: FakeModel, wish: GenerationParams, told: list[list[tuple[str, float]]], negatives: list[str]):
    """The latents of a picture whose sampler is plain Euler: each call's prompts and weights are given."""
    engine = Engine(model)
    (picture,) = engine.prepare("0", wish).pictures
    leg = picture.leg
    for call, (prompts, negative) in enumerate(zip(told, negatives, strict=True)):
        shown = (leg.latents * leg.input_scales[call])[None]

        def ask(text: str, shown: torch.Tensor = shown, call: int = call) -> torch.Tensor:
            encoded = model.encode_prompt(Prompt(text, is_weighted=True))
            time = model.embed_time(torch.tensor(leg.timesteps[call : call + 1]), encoded)
            return model.denoise(shown, time, encoded.attended[None])[0]

        away = ask(negative)
        scale = wish.guidance_scale
        is_guided = wish.guidance_start * len(told) <= call < call + 1 <= wish.guidance_end * len(told)
        if len(prompts) == 1 and not is_guided:
            output = ask(prompts[0][0])
        else:
            output = away + sum(weight * scale * (ask(text) - away) for text, weight in prompts)
            unguided = away + sum(weight * (ask(text) - away) for text, weight in prompts)
            share = wish.guidance_rescale
            output = share * output * (unguided.std() / output.std()) + (1 - share) * output
        matrix = leg.matrices[call]
        leg.slots = torch.stack(
            [sum(matrix[0, k] * leg.slots[k] for k in range(len(leg.slots))) + matrix[0, -2] * output]
        )
    return leg.latents


EULER = {"sampler": "Euler", "noise_schedule": "default", "prompt_syntax": "weighted"}


@pytest.mark.parametrize(
    ("wish", "told", "negatives"),
    [
        ({"prompt": "a cat"}, [[("a cat", 1.0)]] * 4, [""] * 4),
        ({"prompt": "[a cat:a dog:0.5]"}, [[("a cat", 1.0)]] * 3 + [[("a dog", 1.0)]], [""] * 4),
        ({"prompt": "[a cat|a dog]"}, [[(t, 1.0)] for t in ("a cat", "a cat", "a dog", "a cat")], [""] * 4),
        (
            {"prompt": "a cat", "negative_prompt": "[fog:snow:1]"},
            [[("a cat", 1.0)]] * 4,
            ["fog", "fog", "snow", "snow"],
        ),
        ({"prompt": "a cat AND a dog:0.5"}, [[("a cat", 1.0), (" a dog", 0.5)]] * 4, [""] * 4),
        ({"prompt": "a cat AND a dog:-1", "guidance_scale": 1.0}, [[("a cat", 1.0), (" a dog", -1.0)]] * 4, [""] * 4),
        ({"prompt": "a cat AND a dog", "guidance_rescale": 0.6}, [[("a cat", 1.0), (" a dog", 1.0)]] * 4, [""] * 4),
        ({"prompt": "a cat", "guidance_rescale": 0.6}, [[("a cat", 1.0)]] * 4, [""] * 4),
        ({"prompt": "a cat", "guidance_start": 0.25, "guidance_end": 0.75}, [[("a cat", 1.0)]] * 4, [""] * 4),
    ],
)
def test_every_call_is_told_what_the_prompt_says_for_it(params: Params, wish: dict, told: list, negatives: list):
    """Against the sum written plainly. As in A1111, `[a:b:0.5]` is *a* for one call more than half of them."""
    model = FakeModel()
    asked = params(**EULER, **wish)
    engine = Engine(model)
    request = engine.prepare("0", asked)
    engine.add(request)
    (picture,) = request.pictures
    while not picture.is_denoised:
        engine.step()
    torch.testing.assert_close(picture.leg.latents, by_hand(model, asked, told, negatives), rtol=1e-5, atol=1e-5)


def test_the_negative_row_is_not_drawn_where_guidance_is_off(params: Params):
    asked = params(**EULER, guidance_start=0.25, guidance_end=0.75, num_inference_steps=8)
    engine = Engine(FakeModel(), is_reproducible=False)
    add_all(engine, [asked])
    steps = [event for event in run(engine) if isinstance(event, WorkItem) and event.kind == "step"]
    assert [event.rows for event in steps] == [1, 1, 2, 2, 2, 2, 1, 1]
    assert [event.rows_by_request for event in steps] == [{"0": event.rows} for event in steps]
    assert asked.work_units == pytest.approx(params(num_inference_steps=8).work_units * 12 / 16)


def test_texts_of_other_lengths_never_share_a_call(params: Params):
    """And all texts of one picture are as long as its longest."""
    model = FakeModel()
    engine = Engine(model, rows_per_call=8)
    asked = [
        params(**EULER, prompt="a cat"),
        params(**EULER, prompt="a cat", negative_prompt="word " * 80),
        params(**EULER, prompt="[a cat:" + "word " * 160 + ":0.5]"),
        params(**EULER, prompt="a dog"),
    ]
    requests = [engine.prepare(str(index), wish) for index, wish in enumerate(asked)]
    assert [request.pictures[0].batch_key.num_chunks for request in requests] == [1, 2, 3, 1]
    for request in requests:
        engine.add(request)
    together = {
        frozenset(event.rows_by_request)
        for event in run(engine)
        if isinstance(event, WorkItem) and event.kind == "step"
    }
    assert together == {frozenset({"0", "3"}), frozenset({"1"}), frozenset({"2"})}
    for request in requests:
        leg = request.pictures[0].leg
        assert {len(told.prompt) for told in leg.conditionings} == {77 * leg.num_chunks}


@pytest.mark.parametrize(
    ("wish", "field", "rule"),
    [
        ({"prompt": "(a:101)"}, "prompt", "weigh no word"),
        ({"negative_prompt": "(a:101)"}, "negative_prompt", "weigh no word"),
        ({"prompt": "a AND b AND c AND d AND e"}, "prompt", "at most 4 prompts"),
        ({"prompt": "a AND b:1000"}, "prompt", "weigh no part"),
        ({"prompt": "[" + "|".join(map(str, range(40))) + "]", "num_inference_steps": 50}, "prompt", "32 different"),
        (
            {"prompt": "[" + "x" * 3900 + "|" + "y" * 3900 + "]" * 1 + "[a|b|c|d|e|f|g|h|i]"},
            "prompt",
            "32000 characters",
        ),
        ({"guidance_rescale": 1.5}, "guidance_rescale", "from 0 to 1"),
        ({"guidance_start": 0.6, "guidance_end": 0.5}, "guidance_end", "from 0.6 to 1"),
        ({"clip_skip": 12}, "clip_skip", "from 0 to 11"),
        ({"emphasis": "loud"}, "emphasis", "must be one of"),
        ({"prompt_syntax": "loud"}, "prompt_syntax", "must be one of"),
    ],
)
def test_a_prompt_that_cannot_be_told_is_refused_by_field_and_rule(params: Params, wish: dict, field: str, rule: str):
    with pytest.raises(InvalidParamsError, match=rule) as refused:
        params(**({"prompt_syntax": "weighted", "num_inference_steps": 20} | wish))
    assert refused.value.field == field


def test_a_prompt_that_is_too_long_for_the_model_is_refused(params: Params):
    engine = Engine(FakeModel())
    longest = "word " * 600
    assert engine.prepare("0", params(**EULER, prompt=longest)).truncated_tokens == 0
    for name in ("prompt", "negative_prompt"):
        with pytest.raises(InvalidParamsError, match="600 tokens") as refused:
            engine.prepare("0", params(**EULER, **{name: longest + "word"}))
        assert refused.value.field == name
    with pytest.raises(InvalidParamsError, match="64 parts"):
        engine.prepare("0", params(**EULER, prompt="[a|b|c|d|e|f|g|h|i]" + "word " * 520, num_inference_steps=20))


def test_each_picture_is_drawn_after_what_was_chosen_for_it(params: Params):
    """As if it had been asked for alone, in those words."""
    texts = (
        ChosenTexts(prompt="a (red:1.2) cat", negative_prompt="fog"),
        ChosenTexts(prompt="a dog AND snow"),
        ChosenTexts(prompt="word " * 80),
    )
    asked = params(prompt="{a|b}", prompt_syntax="dynamic", chosen_texts=texts, num_images=3)
    engine = Engine(FakeModel())
    add_all(engine, [asked])
    together = images(run(engine))
    for index, chosen in enumerate(texts):
        own = params(
            prompt=chosen.prompt, negative_prompt=chosen.negative_prompt, prompt_syntax="weighted", seed=7 + index
        )
        alone = Engine(FakeModel())
        add_all(alone, [own])
        assert images(run(alone))["0", 0] == together["0", index]
    rows = [2, 3, 2]
    assert asked.work_units == pytest.approx(params(guidance_scale=1.0).work_units * sum(rows))
    with pytest.raises(InvalidParamsError, match="weigh no word"):
        params(prompt="{a|b}", prompt_syntax="dynamic", chosen_texts=(ChosenTexts(prompt="(a:101)"),))


@pytest.mark.parametrize(("model_name", "shows"), [("tiny_model", True), ("dreamlet", False)])
def test_a_weight_reaches_every_network_and_barely_shows_with_the_built_in_one(
    request: pytest.FixtureRequest, params: Params, model_name: str, *, shows: bool
):
    """
    The built-in network brings each token's embedding to one scale before it reads it. See docs/prompts.md.
    """
    model: StableDiffusion = request.getfixturevalue(model_name)
    plain, weighted = (
        model.encode_prompt(Prompt(text, is_weighted=True, emphasis="no_norm")).attended
        for text in ("a red ball", "a (red:1.5) ball")
    )
    is_red = (weighted - plain).abs().amax(dim=1) > 1e-3
    assert 1 <= is_red.sum() <= 4, "the tokens of one word"
    factors = torch.where(is_red, 1.5, 1.0)[:, None]
    # Two calls of the text encoder, whose sums differ in their last bits.
    torch.testing.assert_close(weighted, factors * plain, atol=1e-4, rtol=1e-4)
    engine = Engine(model)
    texts = ("a red ball", "a (red:1.5) ball")
    add_all(engine, [params(prompt=text, prompt_syntax="weighted", emphasis="no_norm") for text in texts])
    one, other = (torch.frombuffer(bytearray(data), dtype=torch.uint8).int() for data in images(run(engine)).values())
    assert ((one - other).abs().max() > 2) == shows


def test_what_was_asked_for_before_there_was_a_language_is_plain():
    assert GenerationParams(prompt="(a:1.2)", seed=1).prompt_syntax == "plain"
