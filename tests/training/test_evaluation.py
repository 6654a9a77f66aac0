"""The judge, the sheets, the figures and the card."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from training.dreamlet import evaluate, sheets
from training.dreamlet.config import load_preset
from training.dreamlet.figures import GOALS, Figures
from training.dreamlet.generate import DEFAULT, SAMPLERS, Settings, generate
from training.dreamlet.judge import Judge, answers, load_judge, shares_right
from training.dreamlet.labels import COLOUR_NAMES, IGNORED, STYLE_NAMES, SUBJECT_NAMES
from training.dreamlet.learning.loop import run
from training.dreamlet.learning.run_folder import RunFolder
from training.dreamlet.networks import new_autoencoder, new_pipeline, new_text_encoder, new_unet
from training.dreamlet.train_judge import JudgeStage
from training.dreamlet.vocabulary import COLOUR_WORDS, COLOURS, PLACES, STYLE_WORDS, SUBJECTS, TIMES

pytestmark = [
    # diffusers' schedulers hand torch tensors to numpy in a way that numpy 2 deprecates.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

TINY = load_preset("tiny")
SINGLE, ASIDE = [0, 0, 0, 0], [IGNORED] * 4


@pytest.fixture(scope="module")
def pipeline(tokenizer):
    torch.manual_seed(0)
    unet = new_unet(TINY.unet, TINY.text.width, sample_size=4)
    made = new_pipeline(new_autoencoder(32), tokenizer, new_text_encoder(TINY.text, tokenizer), unet.eval())
    made.set_progress_bar_config(disable=True)
    return made


def test_a_share_counts_only_what_may_be_asked():
    labels = torch.tensor([[[3, 1, 1, IGNORED], ASIDE, ASIDE], [[4, 1, 2, 5], ASIDE, ASIDE]])
    given = torch.tensor([[[3, 0, 1, 2], SINGLE, SINGLE], [[4, 1, 0, 5], SINGLE, SINGLE]])
    assert shares_right(given, labels) == {"subject": 1.0, "colour": 0.5, "place": 0.5, "time": 1.0}


@pytest.mark.parametrize(("left", "right"), list(product([True, False], repeat=2)))
def test_a_pair_is_right_only_if_both_its_halves_are(left, right):
    labels = torch.tensor([[[IGNORED, IGNORED, 2, 3], [5, 6, IGNORED, IGNORED], [7, 8, IGNORED, IGNORED]]])
    given = torch.tensor([[[0, 0, 2, 3], [5 if left else 0, 6, 0, 0], [7, 8 if right else 0, 0, 0]]])
    assert shares_right(given, labels)["pair"] == (1.0 if left and right else 0.0)


def test_the_judge_looks_at_each_half_for_itself():
    torch.manual_seed(0)
    judge = Judge(16).eval()
    picture = torch.zeros(1, 3, 128, 128)
    other = picture.clone()
    other[..., 96:] = 1.0
    with torch.no_grad():
        before, after = judge(picture)[0], judge(other)[0]
    left, right = ((before[:, region] - after[:, region]).abs().max() for region in (1, 2))
    # Features are wider than a cell, so a little shows across the middle.
    assert left < 0.1 * right


def test_a_judge_learns_and_survives_saving(tmp_path):
    stage = JudgeStage(TINY, 0, test_pictures=4)
    assert run(stage, RunFolder(tmp_path))
    judge = load_judge(tmp_path / "result" / "judge.safetensors")
    images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    assert torch.equal(answers(judge, images), answers(stage.judge, images))
    assert answers(judge, images).shape == (2, 3, 4)


def test_riddles_are_the_same_each_time_and_show_every_kind():
    scenes, prompts = sheets.single_riddles(48)
    assert sheets.single_riddles(48) == (scenes, prompts)
    assert len(prompts) == 48
    assert {scene.subjects[0].kind for scene in scenes} == set(SUBJECT_NAMES)


def test_the_riddles_of_two_name_both_subjects_and_their_colours():
    scenes, prompts = sheets.pair_riddles(48)
    assert len({scene.subjects for scene in scenes}) > 40
    for scene, prompt in zip(scenes, prompts, strict=True):
        for subject in scene.subjects:
            assert any(word in prompt for word in SUBJECTS[subject.kind].words)
            assert any(word in prompt for word in COLOUR_WORDS[subject.colour])
            assert subject.colour in COLOUR_NAMES


def test_a_sheet_of_riddles_hides_the_answers_in_a_file_of_their_own(tmp_path):
    images = torch.full((3, 3, 32, 32), 200, dtype=torch.uint8)
    sheets.write_riddles(tmp_path, "stranger", images, ["a cat", "a dog", "a fox"])
    assert (tmp_path / "stranger_key.txt").read_text() == "1. a cat\n2. a dog\n3. a fox\n"
    plain, numbered = sheets.sheet(images, columns=2), sheets.sheet(images, columns=2, is_numbered=True)
    assert plain.size == (2 * 40 + 8, 2 * 40 + 8)
    assert numbered.height == plain.height + 2 * sheets.LABEL
    assert np.asarray(numbered).min() == 0


def test_every_prompt_is_drawn_with_its_own_seed_whatever_the_batch(pipeline):
    prompts, seeds = ["a cat", "a dog", "a fox"], [1, 2, 3]
    together = generate(pipeline, prompts, seeds, batch_size=2)
    assert together.shape == (3, 3, 64, 64)
    alone = generate(pipeline, prompts[2:], seeds[2:], batch_size=1)
    # Another batch size may round differently.
    assert (together[2].int() - alone[0].int()).abs().max() <= 1


def test_captions_are_judged_and_sheets_are_written(tmp_path):
    asked = []

    def draw(prompts, seeds, settings):
        asked.append((list(prompts), list(seeds), settings))
        return torch.zeros(len(prompts), 3, 64, 64, dtype=torch.uint8)

    judge = Judge(16).eval()
    assert set(evaluate.judge_captions(draw, judge, count=2)) <= set(GOALS)
    assert 0 <= evaluate.draw_sheets(draw, judge, tmp_path, riddles=4)["pair"] <= 1
    assert [len(prompts) for prompts, _, _ in asked] == [2, 24, 24, *[6] * 9, 4, 4, 4]
    assert asked[1][1] == [7] * 24
    assert asked[2][0][7:9] == ["a cat on a mat, digital art", "a dog in a yard"]
    assert asked[2][1][7:9] == [7, 0]
    assert [settings for *_, settings in asked[3:12]] == [*sheets.SETTINGS.values()]
    riddles = {f"{name}{end}" for name in ("stranger", "styles", "pairs") for end in (".png", "_key.txt")}
    settings = {f"settings_{name}.png" for name in sheets.SETTINGS}
    assert {path.name for path in tmp_path.iterdir()} == {"sheet.png", "seeds.png", *riddles, *settings}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_settings_reach_the_picture(pipeline, sampler):
    plain = generate(pipeline, ["a cat"], [1], 1)
    wide = generate(pipeline, ["a cat"], [1], 1, Settings(sampler, steps=3, guidance_scale=4.0, size=(96, 48)))
    assert wide.shape == (1, 3, 48, 96)
    assert not getattr(pipeline.scheduler.config, "clip_sample", False)
    assert torch.equal(generate(pipeline, ["a cat"], [1], 1, DEFAULT), plain)


def test_the_riddles_of_styles_show_each_as_often_and_name_it():
    scenes, prompts = sheets.style_riddles(48)
    assert {style: [scene.style for scene in scenes].count(style) for style in STYLE_NAMES} == dict.fromkeys(
        STYLE_NAMES, 12
    )
    for scene, prompt in zip(scenes, prompts, strict=True):
        assert prompt.endswith(STYLE_WORDS[scene.style][0])


def test_figures_are_kept_and_shown_beside_their_goals(tmp_path):
    shares = {"subject": 0.95, "colour": 0.5, "place": 0.98, "time": 0.98, "pair": 0.9}
    figures = Figures(
        600, shares, dict.fromkeys(shares, 0.99), 29.5, 0.17, 0.3, 0.9, 2, "cpu", {"unet": 12_500_000}
    )  # fmt: skip
    figures.save(tmp_path / "figures.json")
    assert Figures.load(tmp_path / "figures.json") == figures
    assert "| colour | 50.0% | 97% | 99.0% |" in figures.table()


def test_the_model_card_lists_every_word_for_what_the_model_knows():
    card = (Path(__file__).parents[2] / "models" / "dreamlet" / "README.md").read_text(encoding="utf-8")
    known = [*SUBJECTS, *COLOURS, *STYLE_NAMES, *(where.phrases[0] for where in PLACES.values())]
    assert [word for word in (*known, *(when.phrases[0] for when in TIMES.values())) if word not in card] == []
