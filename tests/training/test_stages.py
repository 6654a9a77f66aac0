"""Every part at its smallest size: it runs, goes on, and what it leaves behind draws."""

from dataclasses import replace
from random import Random

import pytest
import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline
from safetensors.torch import load_file

from training.dreamlet.config import load_preset
from training.dreamlet.diffusion import draw_timesteps, noised, weighted_error
from training.dreamlet.drawing.render import render
from training.dreamlet.drawings import stacked
from training.dreamlet.fused_autoencoder import FusedAutoencoder
from training.dreamlet.held_out_loss import HeldOut, versions
from training.dreamlet.learning.learner import Learner
from training.dreamlet.learning.loop import Chance, run
from training.dreamlet.learning.run_folder import RunFolder
from training.dreamlet.machine import as_network_input
from training.dreamlet.networks import new_autoencoder, new_pipeline, new_text_encoder, new_unet, read_unet
from training.dreamlet.scenes import Shares, draw_held_out_scene
from training.dreamlet.tokenizer import token_ids
from training.dreamlet.train import assemble, copy_parts, main, train, with_steps
from training.dreamlet.train_autoencoder import AutoencoderStage, DecoderStage, reconstruction_loss
from training.dreamlet.train_text import TextStage
from training.dreamlet.train_unet import UNetStage

pytestmark = [
    # diffusers' schedulers hand torch tensors to numpy in a way that numpy 2 deprecates.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

TINY = load_preset("tiny")


@pytest.fixture(scope="module")
def out(tmp_path_factory, tokenizer):
    """A run with everything that is drawn from: autoencoder, text encoder, UNet."""
    folder = tmp_path_factory.mktemp("run")
    for stage in (AutoencoderStage(TINY, 0, test_pictures=2), TextStage(TINY, tokenizer)):
        assert run(stage, RunFolder(folder / stage.name))
        copy_parts(folder / stage.name / "result", folder / "parts")
    assert run(unet_stage(folder), RunFolder(folder / "unet"))
    assemble(folder)
    return folder


def unet_stage(out, start_from=None, preset=TINY):
    torch.manual_seed(5)
    return UNetStage(preset, 0, out / "parts", out / "unet" / "latents", start_from, test_scenes=2)


def pictures(count=4, side=64):
    return as_network_input(stacked([render(draw_held_out_scene(Random(seed)), side, side) for seed in range(count)]))


def test_the_pipeline_that_comes_out_loads_as_an_ordinary_one_and_draws(out):
    pipeline = StableDiffusionPipeline.from_pretrained(out / "pipeline", local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline("a cat on a mat", num_inference_steps=2, width=64, height=96).images[0]
    assert picture.size == (64, 96)
    assert pipeline.scheduler.config.prediction_type == "v_prediction"


def test_its_weights_are_float16(out):
    files = list((out / "pipeline").rglob("*.safetensors"))
    assert len(files) == 3
    assert all(tensor.dtype == torch.float16 for file in files for tensor in load_file(file).values())


def test_an_interrupted_unet_goes_on_to_the_step(out, tmp_path):
    """
    The same weights, bit by bit, as the training that was never interrupted; other initial weights do not matter.
    """
    taken = []
    stage = unet_stage(out)
    assert not run(stage, RunFolder(tmp_path), is_interrupted=lambda: taken.append(1) or len(taken) == 3)
    torch.manual_seed(99)
    second = UNetStage(TINY, 0, out / "parts", out / "unet" / "latents", test_scenes=2)
    assert run(second, RunFolder(tmp_path))
    for file in ("unet/diffusion_pytorch_model.safetensors",):
        whole = load_file(out / "unet" / "result" / "pipeline" / file)
        parted = load_file(tmp_path / "result" / "pipeline" / file)
        assert all(torch.equal(whole[name], parted[name]) for name in whole)


def test_a_unet_may_start_from_a_pipeline_or_from_a_file_of_weights(out):
    file = out / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors"
    for source in (out / "pipeline", file):
        own = unet_stage(out, source).unet.state_dict()
        assert all(torch.equal(own[name], weights.float()) for name, weights in load_file(file).items())


def test_refining_the_decoder_leaves_encoder_unet_and_text_as_they_were(out):
    before = {path: path.read_bytes() for path in (out / "pipeline").rglob("*.safetensors")}
    encoder = AutoencoderTiny.from_pretrained(out / "pipeline" / "vae").encoder.state_dict()
    stage = DecoderStage(TINY, 0, AutoencoderTiny.from_pretrained(out / "parts" / "vae"), test_pictures=2)
    assert run(stage, RunFolder(out / "decoder"))
    assemble(out)
    changed = {path.parent.name for path, content in before.items() if path.read_bytes() != content}
    assert changed == {"vae"}
    after = AutoencoderTiny.from_pretrained(out / "pipeline" / "vae")
    assert all(torch.equal(after.encoder.state_dict()[name], weights) for name, weights in encoder.items())
    assert after.config.scaling_factor == AutoencoderTiny.from_pretrained(out / "parts" / "vae").config.scaling_factor


def test_one_part_may_be_trained_alone(tmp_path):
    assert not train(TINY, "autoencoder", tmp_path, None, 0, 600, is_interrupted=lambda: True)
    assert (tmp_path / "autoencoder" / "checkpoint.pt").exists()


def test_a_decay_is_asked_for_by_command(tmp_path):
    main(["unet", "--out", str(tmp_path), "--ask", "decay"])
    assert RunFolder(tmp_path / "unet").is_asked("decay")


@pytest.mark.parametrize("option", [["--ask", "stop"], ["--steps", "5"]])
def test_all_parts_together_cannot_be_asked_or_lengthened(tmp_path, capsys, option):
    with pytest.raises(SystemExit):
        main(["all", "--out", str(tmp_path), *option])
    assert "need one part, not all" in capsys.readouterr().err


def test_the_fused_autoencoder_is_the_same_function_as_the_plain_one():
    """
    Except at the rim, where the plain one pads twice.
    """
    torch.manual_seed(0)
    network = new_autoencoder(32).eval()
    fused = FusedAutoencoder(network)
    images = pictures(2, 128)
    with torch.no_grad():
        latents = network.encode(images).latents
        decoded = network.decode(latents).sample
        back = fused.plain()
        torch.testing.assert_close(fused.encode(images)[..., 3:-3, 3:-3], latents[..., 3:-3, 3:-3], atol=1e-4, rtol=0)
        torch.testing.assert_close(fused.decode(latents)[..., 4:-4, 4:-4], decoded[..., 4:-4, 4:-4], atol=1e-4, rtol=0)
        torch.testing.assert_close(back.encode(images).latents, fused.encode(images), atol=1e-4, rtol=0)
        # Whole again after the loop around: a decoder that was fused once is fused for good.
        inner = slice(4, -4)
        torch.testing.assert_close(
            back.decode(latents).sample[..., inner, inner], decoded[..., inner, inner], atol=1e-4, rtol=0
        )


def test_a_few_steps_bring_the_autoencoder_nearer():
    torch.manual_seed(0)
    network = FusedAutoencoder(new_autoencoder(32))
    learner = Learner(network, TINY.autoencoder.training, for_adamw=("inlet", "outlet"))
    images = pictures()
    losses = []
    for _ in range(15):
        loss = reconstruction_loss(network.decode(network.encode(images)), images)
        losses.append(loss.item())
        learner.step(loss, 1.0)
    assert losses[-1] < 0.8 * losses[0]


def test_the_text_encoder_learns_to_tell_the_scene(tokenizer):
    torch.manual_seed(0)
    # Of one subject, most of the time: whatever the recipe is at, forty steps are enough to see it learn.
    stage = TextStage(replace(with_steps(TINY, "text", 60), shares=Shares()), tokenizer)
    losses = []
    for step in range(40):
        loss = stage.loss(step, Chance(0, "text", step))
        losses.append(loss.item())
        stage.learner.step(loss, 1.0)
    assert sum(losses[-8:]) < 0.8 * sum(losses[:8])
    assert set(stage.score(4)) >= {"first subject", "place"}


def test_noise_levels_lie_where_most_is_decided_and_some_are_pure():
    timesteps, is_pure = draw_timesteps(4000, torch.Generator().manual_seed(0))
    assert is_pure.float().mean().item() == pytest.approx(0.05, abs=0.02)
    assert (timesteps[is_pure] >= 960).all()
    assert 0.3 < ((timesteps > 400) & (timesteps < 850)).float().mean() < 0.8
    latents, noise = torch.ones(4000, 1, 1, 1), torch.full((4000, 1, 1, 1), 3.0)
    mixed = noised(latents, noise, timesteps, is_pure)
    assert (mixed.latents[is_pure] == 3.0).all()


def test_an_error_on_a_subject_counts_as_often_as_said():
    velocity = torch.zeros(1, 16, 2, 2)
    cells = torch.tensor([[[True, False], [False, False]]])
    on, beside = velocity.clone(), velocity.clone()
    on[..., 0, 0], beside[..., 1, 1] = 1.0, 1.0
    ratio = weighted_error(on, velocity, cells, 2.0) / weighted_error(beside, velocity, cells, 2.0)
    assert ratio.item() == pytest.approx(2.0)


def test_the_held_out_loss_is_fixed_and_tells_weights_apart(out):
    stage = unet_stage(out, out / "pipeline")
    held_out, again = (HeldOut(stage._autoencoder, stage._tokenizer, stage._text_encoder, scenes=2) for _ in range(2))
    loss = held_out.loss(stage.unet)
    assert again.loss(stage.unet) == loss
    with torch.no_grad():
        stage.unet.conv_out.bias.add_(1.0)
    assert held_out.loss(stage.unet) > loss


def test_the_held_out_loss_reads_both_weights_of_a_checkpoint(out):
    unet = unet_stage(out).unet
    found = versions(out / "unet" / "checkpoint.pt", unet)
    assert set(found) == {"live", "average"}
    unet.load_state_dict(found["average"])
    assert set(versions(out / "pipeline", unet)["weights"]) == set(read_unet(out / "pipeline"))


def test_a_trained_unet_draws_what_the_caption_says(tokenizer):
    """
    Noising, velocities, guidance and sampler fit together: two captions, two pictures, each gets its own.
    """
    torch.manual_seed(0)
    wanted = torch.stack([torch.full((16, 4, 4), 1.0), torch.full((16, 4, 4), -1.0)]).repeat(8, 1, 1, 1)
    text_encoder = new_text_encoder(TINY.text, tokenizer).eval()
    unet = new_unet(TINY.unet, TINY.text.width, sample_size=4)
    learner = Learner(unet, TINY.unet.training)
    with torch.no_grad():
        captions = torch.tensor(token_ids(tokenizer, ["a red cat", "night"] * 8))
        prompt_embeds = text_encoder(captions).last_hidden_state
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        mixed = noised(wanted, torch.randn(wanted.shape, generator=generator), *draw_timesteps(16, generator))
        predicted = unet(mixed.latents, mixed.timesteps, prompt_embeds).sample
        learner.step((predicted - mixed.velocity).square().mean(), 1.0)
    pipeline = new_pipeline(new_autoencoder(32), tokenizer, text_encoder, unet.eval())
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline(
        ["a red cat", "night"], num_inference_steps=10, guidance_scale=1.0, output_type="latent", height=64, width=64
    ).images
    red, night = drawn.mean(dim=(1, 2, 3)).tolist()
    assert red > 0.5
    assert night < -0.5


def test_presets_differ_only_in_what_the_machine_asks_for():
    cpu, gpu = load_preset("cpu"), load_preset("gpu")
    assert cpu.sizes == gpu.sizes
    assert cpu.shares == gpu.shares
    assert (cpu.unet.channels, cpu.unet.layers_per_block) == (gpu.unet.channels, gpu.unet.layers_per_block)
    for part in ("autoencoder", "decoder", "text", "unet", "judge"):
        mine, other = getattr(cpu, part).training, getattr(gpu, part).training
        assert (mine.muon_rate, mine.adamw_rate, mine.average) == (other.muon_rate, other.adamw_rate, other.average)
    assert gpu.workers > cpu.workers


def test_an_unknown_preset_is_refused_with_those_that_exist():
    with pytest.raises(ValueError, match=r"preset must be one of cpu, gpu, tiny, not abacus"):
        load_preset("abacus")


def test_the_number_of_steps_may_be_given():
    assert with_steps(TINY, "unet", 77).unet.training.steps == 77
