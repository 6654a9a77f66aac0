"""The networks of dreamlet before training, in the layout of Stable Diffusion 1.x, and the pipeline around them."""

import json
import warnings
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from training.dreamlet.config import TextConfig, UNetConfig
from training.dreamlet.tokenizer import MAX_TOKENS

LATENT_CHANNELS = 16
PIXELS_PER_LATENT = 16
ENCODER_BLOCKS = (0, 0, 1, 2, 3)
DECODER_BLOCKS = (4, 4, 2, 1, 0)
"""Residual blocks of each level; the finest has none, since it would cost most."""
TEXT_HEADS = 8
"""Of the attention that makes one vector of a prompt's tokens."""


def new_autoencoder(channels: int) -> AutoencoderTiny:
    """An autoencoder of the layout of TAESD, with one level more."""
    levels = len(ENCODER_BLOCKS)
    return AutoencoderTiny(
        encoder_block_out_channels=(channels,) * levels,
        decoder_block_out_channels=(channels,) * levels,
        num_encoder_blocks=ENCODER_BLOCKS,
        num_decoder_blocks=DECODER_BLOCKS,
        latent_channels=LATENT_CHANNELS,
    )


def new_text_encoder(config: TextConfig, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A small text encoder of CLIP's layout."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.width,
            intermediate_size=4 * config.width,
            projection_dim=config.width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            max_position_embeddings=MAX_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def new_unet(config: UNetConfig, text_width: int, sample_size: int) -> UNet2DConditionModel:
    """A UNet that attends to the text in the middle only; the prompt as one vector reaches every layer with the time.

    Args:
        config: its size.
        text_width: channels of the prompt's embedding.
        sample_size: the native side in latents.
    """
    levels = len(config.channels)
    unet = UNet2DConditionModel(
        sample_size=sample_size,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=config.channels,
        layers_per_block=config.layers_per_block,
        down_block_types=("DownBlock2D",) * levels,
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("UpBlock2D",) * levels,
        cross_attention_dim=text_width,
        # The library's name is a misnomer kept for old checkpoints: this is the number of heads.
        attention_head_dim=4,
        norm_num_groups=16,
        resnet_time_scale_shift="scale_shift",
        addition_embed_type="text",
        addition_embed_type_num_heads=TEXT_HEADS,
    )
    with torch.no_grad():
        # It starts by saying nothing, through branches that hardly speak: large first steps do no harm then.
        unet.conv_out.weight.zero_()
        unet.conv_out.bias.zero_()
        for name, weights in unet.named_parameters():
            if name.endswith(("conv2.weight", "to_out.0.weight", "ff.net.2.weight")):
                weights.mul_(0.1)
    return unet


def new_scheduler() -> DPMSolverMultistepScheduler:
    """The sampler that the model is meant for. Its betas are those of Stable Diffusion, its prediction is v."""
    return DPMSolverMultistepScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        algorithm_type="dpmsolver++",
        solver_order=2,
        use_karras_sigmas=True,
        steps_offset=1,
    )


def new_pipeline(
    autoencoder: AutoencoderTiny, tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel, unet: UNet2DConditionModel
) -> StableDiffusionPipeline:
    """The parts as one pipeline; no safety checker, since nothing unsafe is in its world."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return StableDiffusionPipeline(
            vae=autoencoder,
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            unet=unet,
            scheduler=new_scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )


def save_pipeline(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Write the parts as float16 safetensors in the layout of diffusers. The pipeline is float16 afterwards."""
    pipeline.to(torch.float16)
    pipeline.save_pretrained(folder, safe_serialization=True)
    # transformers loads in the type that its config names, diffusers in float32: without this line a pipeline that is
    # loaded with no type named would be half the one and half the other, and fail.
    config = folder / "text_encoder" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "dtype": "float32"}, indent=2) + "\n")


def load_pipeline(folder: Path) -> StableDiffusionPipeline:
    """Read a pipeline in float32."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def read_unet(source: Path) -> dict[str, torch.Tensor]:
    """The weights of a UNet, float32.

    Args:
        source: a file of weights, or a pipeline's folder.
    """
    file = source / "unet" / "diffusion_pytorch_model.safetensors" if source.is_dir() else source
    return {name: weights.float() for name, weights in load_file(file).items()}
