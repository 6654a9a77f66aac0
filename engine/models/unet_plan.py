"""Which UNets are served: the options of `unet/config.json`, read once. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from engine.models.options import Options

__all__ = ["UNetPlan"]

# What Stable Diffusion 1, 2 and XL have in common; any other value would be another network.
_COMMON: Final[dict[str, tuple[object, ...]]] = {
    "act_fn": ("silu", "swish"),
    "attention_type": ("default",),
    "center_input_sample": (False,),
    "class_embed_type": (None,),
    "class_embeddings_concat": (False,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "cross_attention_norm": (None,),
    "dual_cross_attention": (False,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "mid_block_only_cross_attention": (None, False),
    "mid_block_scale_factor": (1,),
    "num_attention_heads": (None,),
    "num_class_embeds": (None,),
    "only_cross_attention": (False,),
    "resnet_out_scale_factor": (1,),
    "resnet_skip_time_act": (False,),
    "time_embedding_act_fn": (None,),
    "time_embedding_type": ("positional",),
    "timestep_post_act": (None,),
}
_WITHOUT_EFFECT: Final = (
    "addition_embed_type_num_heads",  # read where there is a prompt's vector
    "addition_time_embed_dim",  # the same
    "dropout",
    "projection_class_embeddings_input_dim",
    "sample_size",  # the engine reads it
    "upcast_attention",  # torch's fused attention sums in float32 by itself
)


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetPlan:
    """A UNet in numbers."""

    in_channels: int
    out_channels: int
    channels: tuple[int, ...]
    """Of each block, the outermost first; so are `layers` and `heads`."""
    layers: tuple[int, ...]
    """Residual blocks on the way down; on the way up there is one more."""
    heads: tuple[int, ...]
    down_depths: tuple[tuple[int, ...], ...]
    """For each block its attentions' transformer blocks; empty where it has no attention."""
    middle_depth: int
    up_depths: tuple[tuple[int, ...], ...]
    """The innermost first."""
    has_middle: bool
    text_width: int
    time_width: int
    num_groups: int
    eps: float
    has_scale: bool
    """Whether the timestep scales and shifts, or only shifts."""
    is_linear: bool
    """Whether attention is entered and left through linear layers, or 1x1 convolutions."""
    padding: int
    cosines_first: bool
    frequency_shift: float
    addition: str | None
    """What is added to the timestep's embedding: `text`, `text_time` (SDXL) or nothing."""
    addition_heads: int
    addition_input: int
    size_width: int
    """Of the waves for each of SDXL's six numbers."""
    guidance_width: int
    """Of the waves that say the guidance scale to a network that was distilled with it (*LCM*); 0: it is not told."""

    @classmethod
    def read(cls, options: Options) -> UNetPlan:
        """Read `unet/config.json`.

        Raises:
            ModelLoadError: an option's value is not served.
        """
        channels = options.wholes("block_out_channels", (320, 640, 1280, 1280))
        num_blocks = len(channels)
        layers = options.per_block("layers_per_block", 2, num_blocks)
        # It means the number of heads: https://github.com/huggingface/diffusers/issues/2011
        heads = options.per_block("attention_head_dim", 8, num_blocks)
        if any(width % count for width, count in zip(channels, heads, strict=True)):
            options.refuse("attention_head_dim", f"divisors of block_out_channels {[*channels]}")
        text_widths = set(options.per_block("cross_attention_dim", 1280, num_blocks))
        if len(text_widths) > 1:
            options.refuse("cross_attention_dim", "the same for all blocks")
        down_depths, up_depths = _depths(options, layers)
        addition = options.one_of("addition_embed_type", None, "text", "text_time")
        for name, served in _COMMON.items():
            options.one_of(name, *served)
        options.without_effect(*_WITHOUT_EFFECT)
        plan = cls(
            in_channels=options.whole("in_channels", 4),
            out_channels=options.whole("out_channels", 4),
            channels=channels,
            layers=layers,
            heads=heads,
            down_depths=_where(
                options, "down_block_types", ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",), down_depths
            ),
            middle_depth=down_depths[-1][0],
            up_depths=_where(options, "up_block_types", ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3, up_depths),
            has_middle=options.one_of("mid_block_type", "UNetMidBlock2DCrossAttn", None) is not None,
            text_width=text_widths.pop(),
            time_width=options.whole("time_embedding_dim", 4 * channels[0], null_means_default=True),
            num_groups=options.whole("norm_num_groups", 32),
            eps=options.number("norm_eps", 1e-5),
            has_scale=options.one_of("resnet_time_scale_shift", "default", "scale_shift") == "scale_shift",
            is_linear=options.flag("use_linear_projection", default=False),
            padding=options.whole("downsample_padding", 1, least=0),
            cosines_first=options.flag("flip_sin_to_cos", default=True),
            frequency_shift=float(options.one_of("freq_shift", 0, 1)),
            addition=addition,
            addition_heads=options.whole("addition_embed_type_num_heads", 64) if addition == "text" else 0,
            addition_input=options.whole("projection_class_embeddings_input_dim") if addition == "text_time" else 0,
            size_width=options.whole("addition_time_embed_dim") if addition == "text_time" else 0,
            guidance_width=options.whole("time_cond_proj_dim", 0, least=0, null_means_default=True),
        )
        if addition == "text" and plan.text_width % plan.addition_heads:
            options.refuse("addition_embed_type_num_heads", f"a divisor of cross_attention_dim {plan.text_width}")
        options.end()
        return plan


Depths = tuple[tuple[int, ...], ...]


def _depths(options: Options, layers: tuple[int, ...]) -> tuple[Depths, Depths]:
    """Transformer blocks of every attention, on the way down and on the way up."""
    name, reverse = "transformer_layers_per_block", "reverse_transformer_layers_per_block"
    value = options.any(name, 1)
    down = _nested(options, name, value, layers)
    up_layers = tuple(count + 1 for count in reversed(layers))
    if (value_up := options.any(reverse)) is not None:
        return down, _nested(options, reverse, value_up, up_layers)
    if isinstance(value, list | tuple) and any(isinstance(entry, list | tuple) for entry in value):
        options.refuse(reverse, f"set, as {name} is a list of lists")
    return down, tuple((depths[0],) * count for depths, count in zip(reversed(down), up_layers, strict=True))


def _nested(options: Options, name: str, value: object, layers: tuple[int, ...]) -> Depths:
    """A number for all, for each block, or for each layer of each block -> the last of these."""
    entries = value if isinstance(value, list | tuple) else (value,) * len(layers)
    full = [
        tuple(entry) if isinstance(entry, list | tuple) else (entry,) * count
        for entry, count in zip(entries, layers, strict=False)
    ]
    is_whole = all(isinstance(depth, int) and depth >= 1 for depths in full for depth in depths)
    if not is_whole or tuple(map(len, full)) != layers or len(entries) != len(layers):
        options.refuse(name, f"a whole number of at least 1, or one for each of {len(layers)} blocks or their layers")
    return tuple(full)


def _where(options: Options, name: str, default: tuple[str, ...], depths: Depths) -> Depths:
    """The depths of the blocks with attention; nothing for those without."""
    with_attention, without = default[0], default[-1]
    if name == "up_block_types":
        with_attention, without = without, with_attention
    types = options.any(name, default)
    if not isinstance(types, list | tuple) or len(types) != len(depths):
        options.refuse(name, f"a list of {len(depths)} blocks, as block_out_channels has so many")
    if not all(block in (with_attention, without) for block in types):
        options.refuse(name, f"made of {with_attention} and {without}")
    return tuple(of_block if block == with_attention else () for block, of_block in zip(types, depths, strict=True))
