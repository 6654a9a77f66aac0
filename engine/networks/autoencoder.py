"""Between pictures and latents: diffusers' AutoencoderKL and AutoencoderTiny."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from engine.networks.layers import Downsample, JoinedLinear, ResidualBlock, Upsample, attend

if TYPE_CHECKING:
    from engine.models.options import Options

__all__ = ["AutoencoderKL", "AutoencoderTiny"]


class AutoencoderKL(nn.Module):
    """Stable Diffusion's own."""

    def __init__(self, options: Options) -> None:
        """Lay the network out as `vae/config.json` says.

        Raises:
            ModelLoadError: an option's value is not served.
        """
        super().__init__()
        channels = options.wholes("block_out_channels", (64,))
        num_groups = options.whole("norm_num_groups", 32)
        num_layers = options.whole("layers_per_block", 1)
        attends = options.flag("mid_block_add_attention", default=True)
        latent = options.whole("latent_channels", 4)
        for name, block in (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")):
            types = options.any(name, (block,))
            if not isinstance(types, list | tuple) or [*types] != [block] * len(channels):
                options.refuse(name, f"{block} for each of the {len(channels)} entries of block_out_channels")
        options.one_of("act_fn", "silu", "swish")
        for name in ("latents_mean", "latents_std"):
            options.one_of(name, None)
        _common(options)
        self.encoder = Encoder(channels, num_layers, num_groups, 2 * latent, attends=attends)
        self.decoder = Decoder(channels, num_layers, num_groups, latent, attends=attends)
        has_quant_conv = options.flag("use_quant_conv", default=True)
        self.quant_conv = nn.Conv2d(2 * latent, 2 * latent, 1) if has_quant_conv else None
        has_post_quant_conv = options.flag("use_post_quant_conv", default=True)
        self.post_quant_conv = nn.Conv2d(latent, latent, 1) if has_post_quant_conv else None
        self.scaling_factor = options.number("scaling_factor", 0.18215)
        self.channels = channels
        options.end()

    def encode(self, images: Tensor) -> Tensor:
        """(R, 3, H, W) in [-1, 1] -> (R, 2 C, h, w): means, then logarithms of variances; not yet scaled."""
        moments: Tensor = self.encoder(images)
        return moments if self.quant_conv is None else self.quant_conv(moments)

    def decode(self, latents: Tensor) -> Tensor:
        """(R, C, h, w), divided by `scaling_factor` -> (R, 3, H, W), about [-1, 1]."""
        images: Tensor = self.decoder(latents if self.post_quant_conv is None else self.post_quant_conv(latents))
        return images


class Encoder(nn.Module):
    """Pictures -> moments of latents."""

    def __init__(
        self, channels: tuple[int, ...], num_layers: int, num_groups: int, out_channels: int, *, attends: bool
    ) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, channels[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        for index, width in enumerate(channels):
            inputs = [channels[max(index - 1, 0)]] + [width] * (num_layers - 1)
            resnets = nn.ModuleList(_residual_block(num, width, num_groups) for num in inputs)
            samplers = nn.ModuleList([Downsample(width, 0)] if index < len(channels) - 1 else [])
            self.down_blocks.append(nn.ModuleDict({"resnets": resnets, "downsamplers": samplers}))
        self.mid_block = Middle(channels[-1], num_groups, attends=attends)
        self.conv_norm_out = nn.GroupNorm(num_groups, channels[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(channels[-1], out_channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """(R, 3, H, W) -> (R, C, h, w)."""
        hidden = self.conv_in(images)
        for block in self.down_blocks:
            for layers in block.children():
                for layer in layers.children():
                    hidden = layer(hidden)
        hidden = self.mid_block(hidden)
        output: Tensor = self.conv_out(silu(self.conv_norm_out(hidden)))
        return output


class Decoder(nn.Module):
    """Latents -> pictures."""

    def __init__(
        self, channels: tuple[int, ...], num_layers: int, num_groups: int, in_channels: int, *, attends: bool
    ) -> None:
        super().__init__()
        widths = channels[::-1]
        self.conv_in = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        self.mid_block = Middle(widths[0], num_groups, attends=attends)
        self.up_blocks = nn.ModuleList()
        for index, width in enumerate(widths):
            inputs = [widths[max(index - 1, 0)]] + [width] * num_layers
            resnets = nn.ModuleList(_residual_block(num, width, num_groups) for num in inputs)
            samplers = nn.ModuleList([Upsample(width)] if index < len(widths) - 1 else [])
            self.up_blocks.append(nn.ModuleDict({"resnets": resnets, "upsamplers": samplers}))
        self.conv_norm_out = nn.GroupNorm(num_groups, widths[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        """(R, C, h, w) -> (R, 3, H, W)."""
        hidden = self.mid_block(self.conv_in(latents))
        for block in self.up_blocks:
            for layers in block.children():
                for layer in layers.children():
                    hidden = layer(hidden)
        output: Tensor = self.conv_out(silu(self.conv_norm_out(hidden)))
        return output


class Middle(nn.Module):
    """Attention, if any, between two residual blocks, where the picture is smallest."""

    def __init__(self, width: int, num_groups: int, *, attends: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(_residual_block(width, width, num_groups) for _ in range(2))
        self.attentions = nn.ModuleList([PictureAttention(width, num_groups)] if attends else [])

    def forward(self, hidden: Tensor) -> Tensor:
        """(R, C, h, w) -> the same."""
        for layer in (self.resnets[0], *self.attentions, self.resnets[1]):
            hidden = layer(hidden)
        return hidden


class PictureAttention(nn.Module):
    """Each place of a picture reads all others, with one head."""

    def __init__(self, width: int, num_groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(num_groups, width, eps=1e-6)
        self.to_qkv = JoinedLinear(("to_q", "to_k", "to_v"), width, width, bias=True)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, inputs: Tensor) -> Tensor:
        """(R, C, h, w) -> the same."""
        rows, width, height, breadth = inputs.shape
        places = self.group_norm(inputs).permute(0, 2, 3, 1).reshape(rows, height * breadth, width)
        queries, keys, values = self.to_qkv.split(self.to_qkv(places))
        mixed: Tensor = self.to_out[0](attend(queries, keys, values, num_heads=1))
        return inputs + mixed.reshape(rows, height, breadth, width).permute(0, 3, 1, 2)


class AutoencoderTiny(nn.Module):
    """TAESD and its like: far smaller, and their latents have no variance."""

    def __init__(self, options: Options) -> None:
        """Lay the network out as `vae/config.json` says.

        Raises:
            ModelLoadError: as in `AutoencoderKL`.
        """
        super().__init__()
        latent = options.whole("latent_channels", 4)
        options.one_of("act_fn", "relu")
        options.one_of("upsample_fn", "nearest")
        options.one_of("upsampling_scaling_factor", 2)
        options.without_effect("block_out_channels", "latent_magnitude", "latent_shift")
        _common(options)
        layers: list[nn.Module] = []
        width, blocks = _stages(options, "encoder", (1, 3, 3, 3))
        for stage, num_blocks in enumerate(blocks):
            halving = nn.Conv2d(width, width, 3, padding=1, stride=2, bias=False)
            layers += [halving if stage else nn.Conv2d(3, width, 3, padding=1)]
            layers += [TinyBlock(width) for _ in range(num_blocks)]
        self.encoder = Layers([*layers, nn.Conv2d(width, latent, 3, padding=1)])
        width, blocks = _stages(options, "decoder", (3, 3, 3, 1))
        layers = [nn.Conv2d(latent, width, 3, padding=1), nn.ReLU()]
        for stage, num_blocks in enumerate(blocks):
            layers += [TinyBlock(width) for _ in range(num_blocks)]
            if stage < len(blocks) - 1:
                layers += [nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, padding=1, bias=False)]
        self.decoder = Layers([*layers, nn.Conv2d(width, 3, 3, padding=1)])
        self.scaling_factor = options.number("scaling_factor", 1.0)
        self.channels = (width,) * len(blocks)
        options.end()

    def encode(self, images: Tensor) -> Tensor:
        """(R, 3, H, W) in [-1, 1] -> (R, C, h, w), not yet scaled."""
        latents: Tensor = self.encoder((images + 1) / 2)
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """(R, C, h, w), divided by `scaling_factor` -> (R, 3, H, W), about [-1, 1]."""
        images: Tensor = self.decoder(torch.tanh(latents / 3) * 3)
        return images * 2 - 1


class Layers(nn.Module):
    """One layer after the other."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, inputs: Tensor) -> Tensor:
        """(R, C in, ...) -> (R, C out, ...)."""
        output: Tensor = self.layers(inputs)
        return output


class TinyBlock(nn.Module):
    """Three convolutions beside a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        first, second, third = (nn.Conv2d(width, width, 3, padding=1) for _ in range(3))
        self.conv = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)

    def forward(self, hidden: Tensor) -> Tensor:
        """(R, C, h, w) -> the same."""
        return torch.relu(self.conv(hidden) + hidden)


def _residual_block(in_channels: int, out_channels: int, num_groups: int) -> ResidualBlock:
    return ResidualBlock(in_channels, out_channels, num_groups=num_groups, eps=1e-6)


def _common(options: Options) -> None:
    """Check what must be so in every autoencoder."""
    options.one_of("in_channels", 3)
    options.one_of("out_channels", 3)
    options.one_of("shift_factor", None, 0)
    options.without_effect("force_upcast", "sample_size")  # the dtype is the operator's choice


def _stages(options: Options, part: str, default: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """The width of half a tiny autoencoder, and the blocks of each of its stages."""
    widths = options.wholes(f"{part}_block_out_channels", (64,) * 4)
    blocks = options.wholes(f"num_{part}_blocks", default, least=0)
    if len(set(widths)) > 1 or len(widths) != len(blocks):
        options.refuse(f"{part}_block_out_channels", f"as many equal numbers as num_{part}_blocks has entries")
    return widths[0], blocks
