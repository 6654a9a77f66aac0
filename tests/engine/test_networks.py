"""Our networks against diffusers' and transformers': every parameter's name and shape, every output."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from engine.errors import ModelLoadError
from engine.models.options import Options
from engine.models.unet_plan import UNetPlan
from engine.networks import autoencoder, clip, conditioning, unet
from tests.engine.network_configs import AUTOENCODERS, FULL_KL, FULL_UNETS, TINY, TINY_KL, TINY_TEXT, TINY_TINY, UNETS

DREAMLET = Path(__file__).resolve().parents[2] / "models" / "dreamlet"
CONFIG = Path("model/unet/config.json")
TOKENS = 77

ModuleT = TypeVar("ModuleT", bound=nn.Module)


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


def as_file(config: object) -> dict[str, Any]:
    """What a library's configuration looks like when it has been written and read."""
    return json.loads(json.dumps(dict(config), default=str))  # type: ignore[call-overload]


def our_unet(config: object) -> unet.UNet:
    return unet.UNet(UNetPlan.read(Options(CONFIG, as_file(config))))


def our_autoencoder(config: object) -> autoencoder.AutoencoderKL | autoencoder.AutoencoderTiny:
    values = as_file(config)
    ours = autoencoder.AutoencoderKL if "block_out_channels" in values and "layers_per_block" in values else None
    return (ours or autoencoder.AutoencoderTiny)(Options(CONFIG, values))


def assert_same_parameters(ours: nn.Module, theirs: nn.Module) -> None:
    expected = {name.removeprefix("text_model."): tensor.shape for name, tensor in theirs.state_dict().items()}
    assert {name: tensor.shape for name, tensor in ours.state_dict().items()} == expected
    num_ours, num_theirs = (sum(part.numel() for part in module.parameters()) for module in (ours, theirs))
    assert num_ours == num_theirs, "a parameter that the files do not name"


def with_weights_of(theirs: nn.Module, ours: ModuleT) -> ModuleT:
    """Ours with their weights, dtype and memory layout."""
    assert_same_parameters(ours, theirs)
    weights = {name.removeprefix("text_model."): tensor for name, tensor in theirs.state_dict().items()}
    ours.to(next(theirs.parameters()).dtype)
    for name, tensor in ours.state_dict().items():
        tensor.copy_(weights[name])
    return ours.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def off(found: Tensor, expected: Tensor) -> float:
    """The error, relative to the whole."""
    return float((found - expected).norm() / expected.norm())


# The same layout of memory on both sides: in another one diffusers is 1.3e-6 from itself, as float32 is from the truth.
DTYPES = pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])


def drawn(*shape: int, dtype: torch.dtype) -> Tensor:
    tensor = torch.randn(*shape, dtype=dtype)
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


class Calls:
    """One call of a UNet, ours and diffusers' with the same weights and inputs."""

    def __init__(self, config: dict[str, Any], dtype: torch.dtype, size: tuple[int, int] = (8, 8)) -> None:
        self.theirs = UNet2DConditionModel.from_config(config).to(dtype).eval()
        self.theirs.to(memory_format=torch.channels_last)
        self.ours = with_weights_of(self.theirs, our_unet(self.theirs.config))
        plan = self.ours.plan
        self.latents = drawn(3, plan.in_channels, *size, dtype=dtype)
        self.embeds = drawn(3, TOKENS, plan.text_width, dtype=dtype)
        self.timesteps = torch.tensor([999.0, 300.125, 1.0])
        self.pooled = drawn(3, 16, dtype=dtype)
        self.sizes = torch.tensor(
            [[1024.0, 768.0, 0.0, 16.0, 512.0, 640.0], [64.0] * 6, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]
        )

    def found(self, residuals: list[Tensor] | None = None) -> Tensor:
        addition = None
        if isinstance(self.ours.add_embedding, conditioning.TextAddition):
            addition = self.ours.add_embedding(self.embeds)
        elif isinstance(self.ours.add_embedding, conditioning.SizeAddition):
            addition = self.ours.add_embedding(self.pooled, self.sizes)
        time = self.ours.pack_time(self.timesteps, addition)
        return self.ours(self.latents, time, self.ours.pack_prompt(self.embeds), residuals)

    def expected(self, residuals: list[Tensor] | None = None) -> Tensor:
        extra: dict[str, Any] = {}
        if residuals is not None:
            extra = {
                "down_block_additional_residuals": residuals[:-1],
                "mid_block_additional_residual": residuals[-1],
            }
        answer: Tensor = self.theirs(
            self.latents,
            self.timesteps,
            encoder_hidden_states=self.embeds,
            added_cond_kwargs={"text_embeds": self.pooled, "time_ids": self.sizes},
            return_dict=False,
            **extra,
        )[0]
        return answer


@pytest.mark.parametrize("name", UNETS)
@DTYPES
def test_a_unet_predicts_what_diffusers_does(name: str, dtype: torch.dtype, most: float):
    calls = Calls(UNETS[name], dtype)
    found = calls.found()
    if name == "like dreamlet":
        most = max(most, 1e-7)  # diffusers takes one softmax in float32, whatever the dtype
    assert off(found, calls.expected()) <= most
    assert found.is_contiguous(memory_format=torch.channels_last), "the layout was lost on the way"


@pytest.mark.parametrize("name", ["SD 1", "SDXL"])
@pytest.mark.parametrize("size", [(9, 11), (7, 8), (5, 6)])
def test_sizes_that_do_not_halve_evenly_are_rounded_as_diffusers_does(name: str, size: tuple[int, int]):
    """A picture's sides are multiples of 8 pixels, so its latents may be odd at any depth."""
    calls = Calls(UNETS[name], torch.float64, size)
    assert off(calls.found(), calls.expected()) <= 1e-12


def test_a_downsampling_without_padding_pads_below_and_right():
    calls = Calls(TINY | {"downsample_padding": 0}, torch.float64)
    assert off(calls.found(), calls.expected()) <= 1e-12


def test_the_residuals_of_a_control_network_are_added_where_diffusers_does():
    calls = Calls(TINY, torch.float64)
    shapes = [(32, 8), (32, 8), (32, 4), (64, 4), (64, 4)]
    residuals = [drawn(3, channels, side, side, dtype=torch.float64) for channels, side in shapes]
    found = calls.found(residuals)
    assert off(found, calls.expected(residuals)) <= 1e-12
    assert off(found, calls.found()) > 0.01


def test_the_built_in_unet_predicts_what_diffusers_does():
    theirs = UNet2DConditionModel.from_pretrained(DREAMLET / "unet", torch_dtype=torch.float32, low_cpu_mem_usage=False)
    theirs.to(memory_format=torch.channels_last)
    ours = with_weights_of(theirs, our_unet(theirs.config))
    latents, embeds = drawn(2, 16, 16, 16, dtype=torch.float32), drawn(2, TOKENS, 128, dtype=torch.float32)
    timesteps = torch.tensor([600.5, 600.5])
    time = ours.pack_time(timesteps, ours.add_embedding(embeds))
    expected = theirs(latents, timesteps, encoder_hidden_states=embeds, return_dict=False)[0]
    assert off(ours(latents, time, ours.pack_prompt(embeds)), expected) <= 1e-6


@pytest.mark.parametrize("name", FULL_UNETS)
def test_every_parameter_of_a_full_unet_has_diffusers_name_and_shape(name: str):
    with torch.device("meta"):
        theirs = UNet2DConditionModel.from_config(FULL_UNETS[name])
        assert_same_parameters(our_unet(theirs.config), theirs)


@pytest.mark.parametrize("published", [FULL_KL, FULL_KL | {"scaling_factor": 0.13025}, {}])
def test_every_parameter_of_a_full_autoencoder_has_diffusers_name_and_shape(published: dict[str, Any]):
    with torch.device("meta"):
        theirs = (AutoencoderKL if published else AutoencoderTiny).from_config(published)
        assert_same_parameters(our_autoencoder(theirs.config), theirs)


@pytest.mark.parametrize("name", AUTOENCODERS)
@DTYPES
def test_an_autoencoder_encodes_and_decodes_as_diffusers_does(name: str, dtype: torch.dtype, most: float):
    their_class, config = AUTOENCODERS[name]
    theirs = their_class.from_config(config).to(dtype).eval()
    theirs.to(memory_format=torch.channels_last)
    ours = with_weights_of(theirs, our_autoencoder(theirs.config))
    images, latents = drawn(2, 3, 40, 64, dtype=dtype), drawn(2, 4, 9, 7, dtype=dtype)
    encoded = theirs.encode(images)
    expected = encoded.latents if name == "tiny" else encoded.latent_dist.parameters
    assert off(ours.encode(images), expected) <= most
    decoded = ours.decode(latents)
    expected = theirs.decode(latents).sample
    if name != "tiny" and dtype == torch.float32:
        # diffusers loses the layout behind its attention; no more than what float32 costs it anyway, about 2e-6.
        most = max(most, off(expected, theirs.double().decode(latents.double()).sample))
    assert off(decoded, expected) <= most
    assert decoded.is_contiguous(memory_format=torch.channels_last), "the layout was lost on the way"


@pytest.mark.parametrize("end_token", [99, 2])
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("has_projection", [False, True])
@DTYPES
def test_a_text_encoder_reads_as_transformers_does(
    *, has_projection: bool, activation: str, end_token: int, dtype: torch.dtype, most: float
):
    """Padding may be end tokens, as for the first encoder of SDXL, or others, as for its second."""
    their_class = CLIPTextModelWithProjection if has_projection else CLIPTextModel
    config = CLIPTextConfig(
        **TINY_TEXT, architectures=[their_class.__name__], hidden_act=activation, eos_token_id=end_token
    )
    theirs = their_class(config).to(dtype).eval()
    ours = with_weights_of(theirs, clip.TextEncoder(Options(CONFIG, config.to_dict())))
    tokens = torch.randint(3, 98, (2, TOKENS))
    tokens[0, 10:], tokens[1, 20], tokens[1, 21:] = 99, 99, 0
    expected = theirs(tokens, output_hidden_states=True)
    found = ours.encode(tokens)
    assert off(found.last, expected.last_hidden_state) <= most
    assert torch.equal(ours(tokens), found.last)
    assert off(found.penultimate, expected.hidden_states[-2]) <= most
    assert off(found.pooled, expected.text_embeds if has_projection else expected.pooler_output) <= most


def test_the_built_in_text_encoder_and_autoencoder_are_the_libraries():
    theirs = CLIPTextModel.from_pretrained(DREAMLET / "text_encoder", dtype=torch.float32)
    ours = with_weights_of(theirs, clip.TextEncoder(Options(CONFIG, theirs.config.to_dict())))
    tokens = torch.randint(0, 2016, (1, TOKENS))
    assert off(ours(tokens), theirs(tokens).last_hidden_state) <= 1e-6
    autoencoder_ = AutoencoderTiny.from_pretrained(DREAMLET / "vae", torch_dtype=torch.float32, low_cpu_mem_usage=False)
    autoencoder_.to(memory_format=torch.channels_last)
    ours_ = with_weights_of(autoencoder_, our_autoencoder(autoencoder_.config))
    latents = drawn(1, 16, 16, 16, dtype=torch.float32)
    assert off(ours_.decode(latents), autoencoder_.decode(latents).sample) <= 1e-6


def test_joined_layers_stand_apart_in_files():
    """The names that adapters and files know; views, so that a copy into them is a copy into the joined weights."""
    ours = our_unet(TINY)
    weights = ours.state_dict()
    prefix = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
    weights[f"{prefix}.to_v.weight"].fill_(7)
    joined = ours.get_submodule(f"{prefix}.to_qkv").weight
    assert bool((joined[-32:] == 7).all())
    assert not bool((joined[:-32] == 7).any())


# --- what is refused --------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "activation": ({"act_fn": "gelu"}, "act_fn must be 'silu' or 'swish', not 'gelu'"),
    "block": ({"down_block_types": ["CrossAttnDownBlock2D", "AttnDownBlock2D"]}, "down_block_types must be made of"),
    "blocks": ({"up_block_types": ["UpBlock2D"]}, "up_block_types must be a list of 2"),
    "middle": ({"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"}, "mid_block_type must be"),
    "classes": ({"class_embed_type": "timestep"}, "class_embed_type must be not set, not 'timestep'"),
    "heads": (
        {"attention_head_dim": 5},
        r"attention_head_dim must be divisors of block_out_channels \[32, 64\], not 5",
    ),
    "widths": (
        {"cross_attention_dim": [32, 64]},
        r"cross_attention_dim must be the same for all blocks, not \[32, 64\]",
    ),
    "layers": ({"layers_per_block": "two"}, "layers_per_block must be a whole number"),
    "depths": ({"transformer_layers_per_block": [1, [1, 2]]}, "transformer_layers_per_block must be"),
    "nested": ({"transformer_layers_per_block": [1, [1]]}, "reverse_transformer_layers_per_block must be set"),
    "vector": ({"addition_embed_type": "image"}, "addition_embed_type must be"),
    "sizes": ({"addition_embed_type": "text_time"}, "projection_class_embeddings_input_dim must be a whole number"),
    "truth": ({"use_linear_projection": 1}, "use_linear_projection must be true or false, not 1"),
    "groups": ({"norm_num_groups": None}, "norm_num_groups must be a whole number of at least 1, not None"),
    "new option": ({"gated_attention": "on"}, "gated_attention must be not set, as it is not known here, not 'on'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_option_that_is_not_served_is_refused_by_name(name: str):
    values, message = REFUSED[name]
    with pytest.raises(ModelLoadError, match=f"^{CONFIG}: {message}"):
        our_unet(TINY | values)


@pytest.mark.parametrize(
    ("make", "values", "message"),
    [
        (autoencoder.AutoencoderKL, TINY_KL | {"latents_mean": [0.5]}, r"latents_mean must be not set, not \[0.5\]"),
        (autoencoder.AutoencoderKL, TINY_KL | {"up_block_types": ["UpDecoderBlock2D"]}, "up_block_types must be"),
        (autoencoder.AutoencoderKL, TINY_KL | {"shift_factor": 0.1}, "shift_factor must be not set or 0, not 0.1"),
        (autoencoder.AutoencoderTiny, TINY_TINY | {"act_fn": "silu"}, "act_fn must be 'relu', not 'silu'"),
        (autoencoder.AutoencoderTiny, TINY_TINY | {"num_encoder_blocks": [1]}, "encoder_block_out_channels must be"),
        (clip.TextEncoder, TINY_TEXT | {"hidden_act": "relu"}, "hidden_act must be 'quick_gelu' or 'gelu'"),
        (clip.TextEncoder, TINY_TEXT | {"num_attention_heads": 5}, "num_attention_heads must be a divisor"),
    ],
)
def test_other_networks_refuse_by_name_too(make: Callable[[Options], nn.Module], values: dict[str, Any], message: str):
    with pytest.raises(ModelLoadError, match=f"^{CONFIG}: {message}"):
        make(Options(CONFIG, values))


def test_the_files_of_the_built_in_model_name_what_its_networks_have():
    """So that whoever reads its weights needs no table of names."""
    with torch.device("meta"):
        ours = our_unet(json.loads((DREAMLET / "unet" / "config.json").read_text()))
    stored = load_file(DREAMLET / "unet" / "diffusion_pytorch_model.safetensors")
    assert {name: tensor.shape for name, tensor in ours.state_dict().items()} == {
        name: tensor.shape for name, tensor in stored.items()
    }
