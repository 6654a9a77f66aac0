"""Training at the smallest size: everything runs, and what it leaves behind draws."""

from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from training.dreamlet import evaluate, judge, train_autoencoder, train_diffusion
from training.dreamlet.averages import MovingAverage
from training.dreamlet.card import card
from training.dreamlet.clock import RunClock
from training.dreamlet.config import UNetConfig, load_preset
from training.dreamlet.data import Pool, as_network_input, drawings_with_tokens, stream
from training.dreamlet.diffusion import Denoiser
from training.dreamlet.drawing.render import render
from training.dreamlet.feeding import Feeder
from training.dreamlet.figures import GOALS, Figures
from training.dreamlet.networks import new_autoencoder, new_pipeline, new_text_encoder, new_unet
from training.dreamlet.scenes import draw_held_out_scene
from training.dreamlet.schooling import school
from training.dreamlet.tokenizer import token_ids

pytestmark = [
    # diffusers' schedulers hand torch tensors to numpy in a way that numpy 2 deprecates.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    # From Python 3.12 on; the workers only draw.
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
]

TINY = load_preset("tiny")
A_MOMENT = 0.01
"""Minutes."""


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vae")
    train_autoencoder.train(TINY, A_MOMENT, folder, start_from=None)
    return folder


@pytest.fixture(scope="module")
def run(autoencoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    train_diffusion.train(TINY, RunClock(0.02), folder, autoencoder, start_from=None, checkpoint_every_s=60)
    return folder


def test_a_few_steps_bring_the_autoencoder_nearer():
    torch.manual_seed(0)
    network = new_autoencoder(TINY.autoencoder)
    pictures = [np.asarray(render(draw_held_out_scene(Random(seed)), 64, 64)) for seed in range(4)]
    images = as_network_input(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    losses = []
    for _ in range(12):
        loss = train_autoencoder.reconstruction_loss(network, images, 0.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_a_saved_run_loads_as_an_ordinary_pipeline_and_draws(run):
    pipeline = StableDiffusionPipeline.from_pretrained(run / "pipeline", local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline("a cat on a mat", num_inference_steps=2, width=64, height=96).images[0]
    assert picture.size == (64, 96)
    assert pipeline.scheduler.config.prediction_type == "v_prediction"


def test_the_saved_weights_are_float16(run):
    files = list((run / "pipeline").rglob("*.safetensors"))
    assert len(files) == 3
    assert all(tensor.dtype == torch.float16 for file in files for tensor in load_file(file).values())


def test_a_run_goes_on_where_it_stopped(run, autoencoder):
    before = torch.load(run / "checkpoint.pt", weights_only=True)
    train_diffusion.train(TINY, RunClock(0.08), run, autoencoder, start_from=None, checkpoint_every_s=60)
    after = torch.load(run / "checkpoint.pt", weights_only=True)
    assert after["step"] > before["step"]
    assert after["spent_s"] > before["spent_s"]


def test_a_run_can_start_from_the_weights_that_are_shipped(run, autoencoder, tmp_path):
    train_diffusion.train(TINY, RunClock(A_MOMENT), tmp_path, autoencoder, run / "pipeline", checkpoint_every_s=60)
    assert (tmp_path / "pipeline" / "model_index.json").exists()


def test_schooling_teaches_the_text_encoder_something(tokenizer):
    torch.manual_seed(0)
    encoder = new_text_encoder(TINY.text, tokenizer)
    untaught = school(encoder, tokenizer, TINY, 0.002)
    assert school(encoder, tokenizer, TINY, 0.03) < untaught


def test_the_judge_scores_only_what_may_be_asked():
    images = torch.zeros(3, 3, 64, 64, dtype=torch.uint8)
    labels = torch.tensor([[0, 0, 0, judge.IGNORED]] * 2 + [[1, 1, 1, 2]])
    shares = judge.score(judge.Judge(), images, labels)
    assert set(shares) == set(GOALS)
    assert all(0 <= share <= 1 for share in shares.values())


def test_a_judge_survives_saving(tmp_path):
    shares = judge.train(TINY, A_MOMENT, tmp_path / "judge.safetensors", test_pictures=16)
    assert set(shares) == set(GOALS)
    assert judge.load_judge(tmp_path / "judge.safetensors").training is False


def test_a_pipeline_is_judged_and_put_on_a_sheet(run, tmp_path):
    judge.train(TINY, A_MOMENT, tmp_path / "judge.safetensors", test_pictures=16)
    pipeline = evaluate.load_pipeline(run / "pipeline")
    shares = evaluate.judge_pipeline(pipeline, tmp_path / "judge.safetensors", count=2, batch_size=2)
    assert set(shares) == set(GOALS)
    images = evaluate.generate(pipeline, ["a cat", "a dog", "a fox"], [1, 2, 3], batch_size=2)
    assert images.shape == (3, 3, 64, 64)
    assert evaluate.sheet(images, columns=2, gap=4).size == (2 * 68 + 4, 2 * 68 + 4)


def test_the_card_says_which_goals_were_missed(tmp_path):
    shares = {"subject": 0.95, "colour": 0.5, "place": 0.95, "time": 0.9}
    figures = Figures(600, shares, dict.fromkeys(shares, 0.99), 27.5, 0.3, 2.4, 2, "cpu", {"unet": 16_700_000})
    figures.save(tmp_path / "figures.json")
    text = card(Figures.load(tmp_path / "figures.json"), "Two minutes on a toaster.")
    assert "Below its goal: colour." in text
    assert "Two minutes on a toaster." in text
    assert "50.0%" in text


def test_a_full_pool_forgets_the_oldest():
    pool = Pool(4, torch.device("cpu"))
    for value in range(6):
        pool.add({"x": torch.full((1, 2), value)})
    assert pool.count == 4
    assert set(pool.sample(200)["x"].flatten().tolist()) == {2, 3, 4, 5}


def test_the_average_stands_in_and_steps_back():
    module = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        module.weight.fill_(0.0)
    average = MovingAverage(module, decay=0.5)
    with torch.no_grad():
        module.weight.fill_(1.0)
    average.update()
    with average.in_place():
        inside = module.weight.item()
    assert 0 < inside < 1
    assert module.weight.item() == 1.0


def test_the_learning_rate_rises_and_falls_with_the_clock():
    rates = [RunClock(1.0, spent_s=spent).learning_rate(1.0) for spent in (0.3, 3, 30, 59)]
    assert rates[0] < 0.5
    assert rates[1] > 0.95
    assert rates[3] < 0.05


def test_a_call_may_end_before_the_run():
    clock = RunClock(10.0, call_minutes=0.0, spent_s=60.0)
    assert clock.is_over
    assert clock.progress == pytest.approx(0.1, abs=0.01)


def test_a_preset_may_build_on_another():
    whole, coarse = load_preset("cpu"), load_preset("cpu-coarse")
    assert coarse.unet == whole.unet
    assert coarse.diffusion.pool == whole.diffusion.pool
    assert coarse.diffusion.batch_size != whole.diffusion.batch_size


def test_an_unknown_preset_is_refused_with_those_that_exist():
    with pytest.raises(ValueError, match=r"preset must be one of cpu, .*, not abacus"):
        load_preset("abacus")


def test_a_trained_denoiser_draws_what_the_caption_says(tokenizer):
    """
    Noising, velocities, weights, dropout and sampler fit together: two captions, two pictures, each gets its own.
    """
    torch.manual_seed(0)
    pictures = torch.stack([torch.full((4, 8, 8), 1.0), torch.full((4, 8, 8), -1.0)])
    ids = torch.tensor(token_ids(tokenizer, ["a red cat", "night"]))
    (empty_ids,) = torch.tensor(token_ids(tokenizer, [""]))
    text_encoder = new_text_encoder(TINY.text, tokenizer)
    denoiser = Denoiser(
        text_encoder, new_unet(UNetConfig((16, 32), layers_per_block=1, heads=2), TINY.text.width, sample_size=8)
    )
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=3e-3)
    for _ in range(80):
        loss = denoiser(pictures.repeat(8, 1, 1, 1), ids.repeat(8, 1), empty_ids)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pipeline = new_pipeline(new_autoencoder(TINY.autoencoder), tokenizer, text_encoder, denoiser.unet.eval())
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline(
        ["a red cat", "night"], num_inference_steps=10, guidance_scale=1.5, output_type="latent", height=64, width=64
    ).images
    red, night = drawn.mean(dim=(1, 2, 3)).tolist()
    assert red > 0.5
    assert night < -0.5


def test_drawing_in_other_processes_feeds_the_pool(tokenizer):
    preset = replace(TINY, workers=2)
    batches = stream(preset, drawings_with_tokens(preset, tokenizer, seed=1))
    feeder = Feeder(preset, batches, new_autoencoder(preset.autoencoder))
    feeder.start()
    feeder.wait_for(preset.diffusion.first_pool)
    batch = feeder.sample(Random(0), 3)
    feeder.stop()
    assert batch["latents"].shape == (3, 4, 8, 8)
    assert batch["ids"].shape == (3, 77)
    assert not feeder.is_alive()


def test_a_failure_while_drawing_reaches_the_training_loop():
    def broken():
        yield {"images": torch.zeros(2, 3, 64, 64, dtype=torch.uint8)}
        raise OSError("no more paper")

    feeder = Feeder(TINY, broken(), new_autoencoder(TINY.autoencoder))
    feeder.start()
    with pytest.raises(RuntimeError, match="drawing or encoding failed") as caught:
        feeder.wait_for(TINY.diffusion.first_pool)
    assert isinstance(caught.value.__cause__, OSError)
